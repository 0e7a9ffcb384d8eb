// What every chart has: a figure with a title, axes with names, a tip at the pointer, and its numbers as a table.

const tip = el("div", { id: "tip", hidden: true });

// `lines` are [label, value] pairs or plain strings.
function showTip(x, y, lines) {
  tip.replaceChildren(
    ...lines.map((line) =>
      Array.isArray(line) ? el("div", {}, el("span", {}, line[0]), el("b", {}, line[1])) : el("div", {}, line),
    ),
  );
  tip.hidden = false;
  const box = tip.getBoundingClientRect();
  const left = x + 14 + box.width > window.innerWidth ? x - 14 - box.width : x + 14;
  const top = Math.min(y + 14, window.innerHeight - box.height - 4);
  tip.style.left = `${Math.max(4, left)}px`;
  tip.style.top = `${Math.max(4, top)}px`;
}

const hideTip = () => {
  tip.hidden = true;
};

function withTip(node, lines) {
  const say = () => (typeof lines === "function" ? lines() : lines);
  node.addEventListener("pointermove", (event) => showTip(event.clientX, event.clientY, say()));
  node.addEventListener("pointerleave", hideTip);
  node.addEventListener("focus", () => {
    const box = node.getBoundingClientRect();
    showTip(box.left + box.width / 2, box.top + box.height / 2, say());
  });
  node.addEventListener("blur", hideTip);
  return node;
}

// A tip stands in the topmost layer: that of an open dialog, or the page's.
const placeTip = (parent = document.body) => {
  hideTip();
  parent.append(tip);
};

// A figure. `draw(width)` returns the picture, or null when there is nothing to draw, and is called again whenever the
// width changes, so that letters keep their size. `numbers` is [head, ...rows], which readers of tables get.
function chart({ title, note = null, empty, draw, numbers = null, controls = null }) {
  const plot = el("div", { class: "plot" });
  let drawn = 0;
  function redraw() {
    const width = Math.round(plot.clientWidth);
    if (width < 60) return;
    drawn = width;
    plot.replaceChildren(draw(width) ?? el("p", { class: "empty" }, empty));
  }
  new ResizeObserver(() => {
    if (Math.round(plot.clientWidth) !== drawn) redraw();
  }).observe(plot);
  const figure = el(
    "figure",
    { class: "chart" },
    el("figcaption", {}, el("h3", {}, title), controls, note && el("p", { class: "note" }, note)),
    plot,
  );
  figure.redraw = () => {
    redraw();
    setNumbers();
  };
  const table = el("details", { class: "numbers" }, el("summary", {}, "Numbers"));
  function setNumbers() {
    const lines = typeof numbers === "function" ? numbers() : numbers;
    table.hidden = !lines || lines.length < 2;
    if (!table.hidden) table.replaceChildren(table.firstChild, numbersTable(lines));
  }
  setNumbers();
  figure.append(table);
  return figure;
}

function numbersTable([head, ...rows]) {
  return el(
    "table",
    {},
    el(
      "thead",
      {},
      el(
        "tr",
        {},
        head.map((name) => el("th", { scope: "col" }, name)),
      ),
    ),
    el(
      "tbody",
      {},
      rows.map(([first, ...cells]) =>
        el(
          "tr",
          {},
          el("th", { scope: "row" }, first),
          cells.map((cell) => el("td", {}, cell)),
        ),
      ),
    ),
  );
}

// Axes of a picture. x and y are { range, ticks, label, format }; returns the picture and its scales.
function axes({ width, height, x, y, label, role = "img" }) {
  const format = { x: x.format ?? short, y: y.format ?? short };
  const widest = Math.max(1, ...y.ticks.map((value) => format.y(value).length));
  const box = { left: 12 + 7 * widest, right: width - 14, top: 26, bottom: height - 38 };
  const at = (range, from, to) => (value) => from + ((value - range[0]) / (range[1] - range[0])) * (to - from);
  const sx = at(x.range, box.left, box.right);
  const sy = at(y.range, box.bottom, box.top);
  const root = svg("svg", { viewBox: `0 0 ${width} ${height}`, role, "aria-label": label });
  for (const value of y.ticks) {
    root.append(
      svg("line", { class: "grid", x1: box.left, x2: box.right, y1: sy(value), y2: sy(value) }),
      svg("text", { class: "tick", x: box.left - 6, y: sy(value) + 4, "text-anchor": "end" }, format.y(value)),
    );
  }
  for (const value of x.ticks) {
    root.append(
      svg("text", { class: "tick", x: sx(value), y: box.bottom + 17, "text-anchor": "middle" }, format.x(value)),
    );
  }
  root.append(
    svg("line", { class: "axis", x1: box.left, x2: box.right, y1: box.bottom, y2: box.bottom }),
    svg("text", { class: "label", x: 2, y: 12 }, y.label),
    svg("text", { class: "label", x: box.right, y: height - 4, "text-anchor": "end" }, x.label),
  );
  return { root, x: sx, y: sy, box };
}

const path = (points) => points.map(([x, y], i) => `${i ? "L" : "M"}${x.toFixed(1)},${y.toFixed(1)}`).join("");

// The mark of each kind, different in shape as well as in colour.
function mark(kind, x, y, size = 5) {
  if (kind === "update") {
    const s = size * 1.2;
    return svg("path", { class: "mark update", d: `M${x},${y - s}L${x + s},${y}L${x},${y + s}L${x - s},${y}Z` });
  }
  if (kind === "failed") {
    const s = size * 0.8;
    return svg("path", {
      class: "mark failed",
      d: `M${x - s},${y - s}L${x + s},${y + s}M${x - s},${y + s}L${x + s},${y - s}`,
    });
  }
  return svg("circle", { class: `mark ${kind}`, cx: x, cy: y, r: size });
}

function legend(entries) {
  return el(
    "ul",
    { class: "legend" },
    entries.map(([kind, name]) =>
      el(
        "li",
        {},
        svg("svg", { viewBox: "0 0 22 14", width: 22, height: 14, "aria-hidden": "true" }, legendMark(kind)),
        name,
      ),
    ),
  );
}

function legendMark(kind) {
  if (kind.startsWith("line ")) {
    const shape = kind.slice(5);
    return [svg("path", { class: `curve ${shape}`, d: "M0,7L22,7" }), mark(shape, 11, 7, 3.5)];
  }
  if (kind.startsWith("step ")) return [svg("path", { class: `curve ${kind}`, d: "M0,7L22,7" })];
  if (kind.startsWith("ring ")) return [svg("circle", { class: kind, cx: 11, cy: 7, r: 6 })];
  return [mark(kind, 11, 7, 4.5)];
}
