// Charts of several lines over one axis, each in its own colour and dash, with 95 % intervals as bands.

const LINES = 8;
const lineClass = (i) => `line-${i % LINES}`;

// chart: { title, note, x: [number], x_label, y_label, series: [{ name, means: [Mean] }] }
function linesChart(data) {
  return chart({
    title: data.title,
    note: data.note || null,
    empty: "Nothing to draw yet.",
    controls: lineLegend(data.series),
    draw: (width) => drawLines(width, data),
    numbers: lineNumbers(data),
  });
}

const lineLegend = (series) =>
  el(
    "ul",
    { class: "legend" },
    series.map(({ name }, i) =>
      el(
        "li",
        {},
        svg(
          "svg",
          { viewBox: "0 0 22 14", width: 22, height: 14, "aria-hidden": "true" },
          svg("path", { class: `curve ${lineClass(i)}`, d: "M0,7L22,7" }),
        ),
        visible(name),
      ),
    ),
  );

function drawLines(width, { title, x, x_label, y_label, series }) {
  const all = series.flatMap(({ means }) => means.flatMap((m) => [m.mean, m.low, m.high])).filter(Number.isFinite);
  if (!all.length) return null;
  const range = extent(all);
  const across = extent(x, 0.03);
  const frame = axes({
    width,
    height: 280,
    x: { range: across, ticks: ticks(...across, 6, 1), label: x_label, format: String },
    y: { range, ticks: ticks(...range, 5), label: y_label, format: number },
    label: title,
  });
  series.forEach((one, i) => frame.root.append(...oneLine(one, i, x, frame)));
  x.forEach((value, place) => {
    const left = place ? (frame.x(x[place - 1]) + frame.x(value)) / 2 : frame.box.left;
    const right = place < x.length - 1 ? (frame.x(x[place + 1]) + frame.x(value)) / 2 : frame.box.right;
    frame.root.append(
      withTip(
        svg("rect", {
          class: "hit",
          x: left,
          y: frame.box.top,
          width: Math.max(0, right - left),
          height: frame.box.bottom - frame.box.top,
        }),
        tipLines(`${x_label} ${value}`, series, place),
      ),
    );
  });
  return frame.root;
}

function oneLine({ means }, i, x, frame) {
  const at = means.map((m, k) => ({ ...m, at: frame.x(x[k]) })).filter((m) => Number.isFinite(m.mean));
  const sure = at.filter((m) => Number.isFinite(m.low));
  const edge = [
    ...sure.map((m) => [m.at, frame.y(m.high)]),
    ...sure.toReversed().map((m) => [m.at, frame.y(m.low)]),
  ];
  return [
    edge.length > 2 ? svg("path", { class: `band ${lineClass(i)}`, d: `${path(edge)}Z` }) : null,
    svg("path", { class: `curve ${lineClass(i)}`, d: path(at.map((m) => [m.at, frame.y(m.mean)])) }),
    ...(at.length > 12 ? [] : at.map((m) => svg("circle", { class: `dot ${lineClass(i)}`, cx: m.at, cy: frame.y(m.mean), r: 4 }))),
  ].filter(Boolean);
}

const tipLines = (head, series, place) => [
  visible(head),
  ...series
    .filter(({ means }) => Number.isFinite(means[place]?.mean))
    .map(({ name, means }) => [visible(name), `${precise(means[place].mean)} (${interval(means[place])})`]),
];

function lineNumbers({ x, x_label, series }) {
  const head = [x_label, ...series.flatMap(({ name }) => [visible(name), "95\u00a0% interval", "n"])];
  const rows = x.map((value, i) => [
    String(value),
    ...series.flatMap(({ means }) => [precise(means[i].mean), interval(means[i]), whole(means[i].n)]),
  ]);
  return [head, ...rows];
}
