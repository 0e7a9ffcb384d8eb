// Means over rounds, with their 95 % intervals.

// series: [{ kind, name, means: [Mean a round] }]
function curves(width, series, { label, yLabel, fromZero = false }) {
  const all = series.flatMap(({ means }) => means.flatMap((m) => [m.mean, m.low, m.high])).filter(Number.isFinite);
  if (!all.length) return null;
  const rounds = series[0].means.map((_, i) => i);
  const range = extent(all);
  if (fromZero) range[0] = 0;
  const y = { range, ticks: ticks(...range, 5), label: yLabel, format: number };
  const every = Math.ceil(rounds.length / Math.max(2, Math.floor(width / 50)));
  const x = {
    range: [-0.3, Math.max(rounds.length - 0.7, 0.3)],
    ticks: rounds.filter((i) => i % every === 0),
    label: "round",
    format: String,
  };
  const frame = axes({ width, height: 250, x, y, label });
  series.forEach((one, i) => frame.root.append(...curve(one, frame, (i - (series.length - 1) / 2) * 7)));
  for (const round of rounds) {
    const left = frame.x(round - 0.5);
    frame.root.append(
      withTip(
        svg("rect", {
          class: "hit",
          x: Math.max(left, frame.box.left),
          y: frame.box.top,
          width: Math.min(frame.x(round + 0.5), frame.box.right) - Math.max(left, frame.box.left),
          height: frame.box.bottom - frame.box.top,
        }),
        roundLines(series, round),
      ),
    );
  }
  return frame.root;
}

// A line through the means and a whisker at each; series stand a little apart so that whiskers do not hide each other.
function curve({ kind, means }, frame, shift) {
  const at = means.map((m, i) => ({ ...m, x: frame.x(i) + shift })).filter((m) => Number.isFinite(m.mean));
  return [
    svg("path", { class: `curve ${kind}`, d: path(at.map((m) => [m.x, frame.y(m.mean)])) }),
    ...at
      .filter((m) => Number.isFinite(m.low))
      .map((m) => svg("line", { class: `whisker ${kind}`, x1: m.x, x2: m.x, y1: frame.y(m.low), y2: frame.y(m.high) })),
    ...at.map((m) => mark(kind, Number(m.x.toFixed(1)), Number(frame.y(m.mean).toFixed(1)), 4)),
  ];
}

function roundLines(series, round) {
  const known = series.filter(({ means }) => Number.isFinite(means[round]?.mean));
  return [
    `Round ${round}`,
    ...known.map(({ name, means }) => [
      name,
      `${precise(means[round].mean)} (${interval(means[round])}, n ${whole(means[round].n)})`,
    ]),
  ];
}

function curveNumbers(series) {
  const head = ["Round", ...series.flatMap(({ name }) => [name, "95\u00a0% interval", "n"])];
  const rows = series[0].means.map((_, i) => [
    String(i),
    ...series.flatMap(({ means }) => [precise(means[i].mean), interval(means[i]), whole(means[i].n)]),
  ]);
  return [head, ...rows];
}
