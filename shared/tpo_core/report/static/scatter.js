// Points of a plane, of which the one next to the pointer is told of and can be opened.

const MOST_DOTS = 2000;

// points: [{ x, y, kind, tip, open }]; reads where the pointer is instead of having a listener a dot.
function dots(points, frame) {
  const group = svg("g", { class: "dots" });
  const placed = points.map((point) => ({ ...point, px: frame.x(point.x), py: frame.y(point.y) }));
  for (const { kind, px, py } of placed) group.append(mark(kind, Number(px.toFixed(1)), Number(py.toFixed(1)), 3.2));
  return { group, placed };
}

function nearest(placed, x, y, within = 14) {
  let best = null;
  let least = within * within;
  for (const point of placed) {
    const far = (point.px - x) ** 2 + (point.py - y) ** 2;
    if (far < least) {
      least = far;
      best = point;
    }
  }
  return best;
}

function watchDots(root, placed) {
  const ring = svg("circle", { class: "ring near", r: 7, visibility: "hidden" });
  root.append(ring);
  const find = (event) => {
    const box = root.getBoundingClientRect();
    const scale = root.viewBox.baseVal.width / box.width;
    return nearest(placed, (event.clientX - box.left) * scale, (event.clientY - box.top) * scale);
  };
  root.addEventListener("pointermove", (event) => {
    const point = find(event);
    ring.setAttribute("visibility", point ? "visible" : "hidden");
    root.classList.toggle("can-open", point !== null);
    if (!point) return hideTip();
    ring.setAttribute("cx", point.px);
    ring.setAttribute("cy", point.py);
    showTip(event.clientX, event.clientY, point.tip());
  });
  root.addEventListener("pointerleave", () => {
    hideTip();
    ring.setAttribute("visibility", "hidden");
  });
  root.addEventListener("click", (event) => find(event)?.open());
}
