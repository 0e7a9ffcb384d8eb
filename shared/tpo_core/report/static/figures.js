// The figures of a run, from its summary and its rows.

const WINNERS = { first: "first sample", fresh: "later sample", update: "update" };

function figures(summary, rows, table, open) {
  return [
    el(
      "div",
      { class: "charts" },
      rewardChart(summary),
      spreadChart(summary),
      tokensChart(rows, open),
      gainsChart(summary, table),
    ),
    el(
      "div",
      { class: "counts" },
      countsChart(
        "Where the answer came from",
        summary.winners,
        summary.answered,
        (name) => table.filter({ winner: name }),
        (name) => (name === "update" ? "update" : name === "fresh" ? "fresh" : "sample"),
        "No query has an answer.",
        WINNERS,
      ),
      countsChart(
        "Why loops stopped",
        summary.stop_reasons,
        summary.queries,
        (name) => table.filter({ stop: name }),
        () => "neutral",
        "No loop ended.",
        {},
        STOPS,
      ),
      countsChart(
        "Failed candidates, by reason",
        summary.failures,
        summary.candidates,
        (name) => table.filter({ failure: name }),
        () => "failed",
        summary.candidates ? "No candidate failed." : "No candidate was made.",
        {},
        REASONS,
        " of all candidates",
      ),
      Object.keys(summary.errors).length
        ? countsChart(
            "Queries that ended with an error",
            summary.errors,
            summary.queries,
            () => table.filter({ stop: "error" }),
            () => "failed",
            "",
          )
        : null,
      Object.keys(summary.rounds_failed).length
        ? countsChart(
            "Rounds that failed, by reason",
            summary.rounds_failed,
            Object.values(summary.rounds_failed).reduce((a, b) => a + b, 0),
            null,
            () => "failed",
            "",
            {},
            REASONS,
          )
        : null,
    ),
  ];
}

function rewardChart({ rounds }) {
  let suffix = "";
  let figure = null;
  const series = () =>
    [
      ["best", "", "best so far"],
      ["sample", "_sample", "best sample so far"],
      ["update", "_update", "best update so far"],
    ]
      .map(([kind, part, name]) => ({ kind, name, means: rounds.map((r) => r[`best${part}${suffix}`]) }))
      .filter(({ means }) => means.some((m) => m.n));
  figure = chart({
    title: "Reward over rounds",
    note: "Mean over queries with its 95\u00a0% interval. A query whose loop has ended counts in later rounds with what it ended with.",
    empty: "No query has a scored answer.",
    controls: [
      switcher("Reward as", ["Reward", "Gain over the first best"], (i) => {
        suffix = i ? "_gain" : "";
        figure?.redraw();
      }),
      legend([
        ["line best", "best so far"],
        ["line sample", "best sample"],
        ["line update", "best update"],
      ]),
    ],
    draw: (width) =>
      rounds.length
        ? curves(width, series(), {
            label: "Reward over rounds: the best so far, its samples, its updates",
            yLabel: suffix ? "reward above the first best" : "reward",
          })
        : null,
    numbers: () => (rounds.length ? curveNumbers(series()) : null),
  });
  return figure;
}

function spreadChart({ rounds }) {
  const series = [
    ["sample", "samples"],
    ["update", "updates"],
  ]
    .map(([kind, name]) => ({ kind, name, means: rounds.map((r) => r[`${name}_sd`]) }))
    .filter(({ means }) => means.some((m) => m.n));
  return chart({
    title: "Spread within a round",
    note:
      "Standard deviation of a round's rewards within a query, mean over queries with 95\u00a0% interval. Where updates lie " +
      "closer together than samples, more of them bring less.",
    empty: "No round has two scored candidates of a kind.",
    controls: legend([
      ["line sample", "samples"],
      ["line update", "updates"],
    ]),
    draw: (width) =>
      series.length
        ? curves(width, series, {
            label: "Spread of rewards by round",
            yLabel: "standard deviation (reward)",
            fromZero: true,
          })
        : null,
    numbers: series.length ? curveNumbers(series) : null,
  });
}

function gainsChart({ gains, gain }, table) {
  const any = gains.zero + gains.counts.length > 0;
  return chart({
    title: "Gains",
    note: "Reward of the answer less that of the best first sample, which it is never below.",
    empty: "No query has a gain to measure.",
    draw: (width) =>
      any
        ? histogram(width, gains, {
            label: `Histogram of the gains of ${plural(gain.n, "query", "queries")}`,
            pick: (range) => table.filter({ gain: range }),
          })
        : null,
    numbers: any
      ? [
          ["Gain", "Queries"],
          ["none", whole(gains.zero)],
          ...(gains.below ? [["less", whole(gains.below)]] : []),
          ...gains.counts.map((count, i) => [
            `${number(gains.start + i * gains.width)} to ${number(gains.start + (i + 1) * gains.width)}`,
            whole(count),
          ]),
          ...(gains.above ? [["more", whole(gains.above)]] : []),
        ]
      : null,
  });
}

function countsChart(title, counts, total, pick, kind, empty, names = {}, meanings = {}, of = "") {
  const entries = Object.entries(counts).sort((a, b) => b[1] - a[1]);
  const most = 12;
  const shown = entries.slice(0, most);
  const back = Object.fromEntries(entries.map(([name]) => [names[name] ?? name, name]));
  return chart({
    title,
    empty,
    note: entries.length > most ? `The ${most} most frequent of ${entries.length}.` : null,
    draw: (width) =>
      shown.length
        ? bars(
            width,
            shown.map(([name, count]) => [names[name] ?? name, count, kind(name), meanings[name]]),
            total,
            pick && ((name) => pick(back[name])),
            `${title}: ${shown.map(([name, count]) => `${names[name] ?? visible(name)} ${whole(count)}`).join(", ")}`,
          )
        : null,
    numbers: entries.length
      ? [
          ["", "Count", `Share${of}`],
          ...entries.map(([name, count]) => [visible(names[name] ?? name), whole(count), percent(count / total, 1)]),
        ]
      : null,
  });
}
