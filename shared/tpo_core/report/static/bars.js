// Counts of words as horizontal bars, and a histogram; a bar that can be picked filters the table.

// counts: [[name, count, kind, tip?]]; `pick(name)` or null.
function bars(width, counts, total, pick, label) {
  const room = Math.min(150, Math.max(...counts.map(([name]) => 7.2 * visible(name).length)) + 10);
  const most = Math.max(...counts.map(([, count]) => count));
  const height = counts.length * 28 + 4;
  const root = svg("svg", { viewBox: `0 0 ${width} ${height}`, role: pick ? "group" : "img", "aria-label": label });
  counts.forEach(([name, count, kind, meaning], i) => {
    const y = i * 28 + 2;
    const long = Math.max(1.5, (count / most) * (width - room - 96));
    const text = visible(name);
    const share = `${whole(count)} · ${percent(count / total, count / total < 0.1 ? 1 : 0)}`;
    const group = svg(
      "g",
      {},
      svg("rect", { class: "hit", x: 0, y, width, height: 26, rx: 4 }),
      svg("text", { class: "label", x: 2, y: y + 17 }, text.length > 20 ? text.slice(0, 19) + "…" : text),
      svg("rect", { class: `bar ${kind}`, x: room, y: y + 5, width: long, height: 16, rx: 2 }),
      svg("text", { class: "tick", x: room + long + 7, y: y + 17 }, share),
    );
    root.append(pickable(group, pick && (() => pick(name)), [[text, share], ...(meaning ? [meaning] : [])]));
  });
  return root;
}

function pickable(group, pick, lines) {
  withTip(group, pick ? [...lines, "Show these in the table"] : lines);
  if (!pick) return group;
  build(
    group,
    {
      class: "pick",
      role: "button",
      tabindex: 0,
      "aria-label": `${lines.flat().join(" ")}: show in the table`,
      click: pick,
      keydown: (event) => {
        if (event.key === "Enter" || event.key === " ") {
          event.preventDefault();
          pick();
        }
      },
    },
    [],
  );
  return group;
}

// Bars of the bins, with the values that are exactly 0 as one bar of their own.
function histogram(width, gains, { label, pick }) {
  const bins = gains.counts.map((count, i) => ({ count, low: gains.start + i * gains.width, wide: gains.width }));
  if (gains.above && bins.length) bins.at(-1).beyond = gains.above;
  if (gains.below && bins.length) bins[0].under = gains.below;
  const shown = (bin) => bin.count + (bin.beyond ?? 0) + (bin.under ?? 0);
  const low = bins.length ? Math.min(0, bins[0].low) : 0;
  const high = bins.length ? Math.max(0, bins.at(-1).low + gains.width) : 1;
  const unit = bins.length ? gains.width : 0.1;
  const top = Math.max(gains.zero, ...bins.map(shown));
  const x = {
    range: [low - unit * 1.6, high + unit * 0.4],
    ticks: ticks(low, high, Math.max(3, Math.floor(width / 90))),
    label: "gain (reward)",
    format: number,
  };
  const y = { range: [0, top * 1.05], ticks: ticks(0, top, 4, 1), label: "queries" };
  const frame = axes({ width, height: 250, x, y, label, role: "group" });
  const bar = (from, to, count, kind, lines, range) => {
    const left = frame.x(from);
    const wide = Math.max(1.5, frame.x(to) - left - 1);
    const group = svg(
      "g",
      {},
      svg("rect", { class: "hit", x: left, y: frame.box.top, width: wide, height: frame.box.bottom - frame.box.top }),
      svg("rect", {
        class: `bar ${kind}`,
        x: left,
        y: frame.y(count),
        width: wide,
        height: frame.box.bottom - frame.y(count),
      }),
    );
    frame.root.append(pickable(group, () => pick(range), lines));
  };
  if (gains.zero) {
    bar(
      low - unit * 1.4,
      low - unit * 0.4,
      gains.zero,
      "zero",
      [["no gain", plural(gains.zero, "query", "queries")]],
      [0, 0],
    );
    frame.root.append(
      svg(
        "text",
        { class: "tick", x: frame.x(low - unit * 0.9), y: frame.box.bottom + 30, "text-anchor": "middle" },
        "none",
      ),
    );
  }
  bins.forEach((bin) => {
    if (!shown(bin)) return;
    const end = bin.low + bin.wide;
    const range = [bin.under ? -Infinity : bin.low, bin.beyond ? Infinity : end];
    const name = bin.beyond
      ? `${number(bin.low)} or more`
      : bin.under
        ? `below ${number(end)}`
        : `${number(bin.low)} to ${number(end)}`;
    bar(bin.low, end, shown(bin), "gain", [[name, plural(shown(bin), "query", "queries")]], range);
  });
  return frame.root;
}
