// What queries cost beside what they reached: a dot each.

function tokensChart(rows, open) {
  let gain = false;
  let figure = null;
  const usable = rows.filter((row) => row.best !== null && row.tokens > 0);
  const every = Math.ceil(usable.length / MOST_DOTS) || 1;
  const shown = usable.filter((_, i) => i % every === 0);
  figure = chart({
    title: "Reward against tokens",
    note:
      (every > 1 ? `A dot a query, ${whole(shown.length)} of ${whole(usable.length)} shown. ` : "A dot a query. ") +
      "Harder or longer queries cost more tokens as well: a trend is no proof that tokens buy reward.",
    empty: rows.length ? "No tokens were reported." : "No queries.",
    controls: [
      switcher("Reward as", ["Reward", "Gain over the first best"], (i) => {
        gain = i === 1;
        figure?.redraw();
      }),
      legend([
        ["first", "answer is a first sample"],
        ["update", "an update"],
        ...(shown.some((r) => r.winner === "fresh") ? [["fresh", "a later sample"]] : []),
      ]),
    ],
    draw: (width) => drawTokens(width, shown, gain, open),
  });
  return figure;
}

function drawTokens(width, rows, gain, open) {
  const value = gain ? "gain" : "best";
  const drawn = rows.filter((row) => row[value] !== null);
  if (!drawn.length) return null;
  const x = {
    range: extent(
      drawn.map((row) => row.tokens),
      0.04,
    ),
    label: "tokens of the query",
  };
  x.range[0] = Math.max(0, x.range[0]);
  x.ticks = ticks(...x.range, Math.max(3, Math.floor(width / 90)));
  const y = {
    range: extent(drawn.map((row) => row[value])),
    label: gain ? "reward above the first best" : "reward of the answer",
    format: number,
  };
  y.ticks = ticks(...y.range, 5);
  const frame = axes({
    width,
    height: 250,
    x,
    y,
    label: `Reward against tokens of ${plural(drawn.length, "query", "queries")}`,
  });
  const { group, placed } = dots(
    drawn.map((row) => ({
      x: row.tokens,
      y: row[value],
      kind: row.winner,
      open: () => open(row),
      tip: () => [
        [`${nameOf(row)}`, `${reward(row.best)} (${signedReward(row.gain)})`],
        ["tokens", whole(row.tokens)],
        visible(row.query),
      ],
    })),
    frame,
  );
  frame.root.append(group);
  watchDots(frame.root, placed);
  return frame.root;
}
