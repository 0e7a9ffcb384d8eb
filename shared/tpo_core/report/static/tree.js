// The tree of one query: its rounds from left to right, its rewards from low to high, and below it every text.

const STOPS = {
  depth: "ran all its rounds",
  stop_at: "reached the reward asked for",
  patience: "rounds without gain",
  max_calls: "budget of calls",
  max_tokens: "budget of tokens",
  deadline: "deadline",
  no_contrast: "all rewards equal: nothing to compare",
  no_expected_gain: "nothing more was worth its tokens",
  no_candidates: "a round gave no candidate",
  critic_failed: "the critic failed",
  reward_failed: "the reward model failed",
  error: "an error",
  cancelled: "cancelled",
};
const stopText = (stop) => (STOPS[stop] ? `${stop} (${STOPS[stop]})` : brief(stop, 80));

function treeOf(record) {
  const box = el("div", { class: "tree" });
  if (record.error)
    box.append(el("p", { class: "callout bad" }, `This query ended with an error. ${brief(record.error, 4000)}`));
  if (record.left_out !== undefined) {
    box.append(
      el(
        "p",
        { class: "empty" },
        `This page keeps the trees of the first ${plural(record.left_out, "query", "queries")} only.`,
      ),
    );
  }
  if (!record.query) return box;
  const candidates = record.candidates ?? [];
  box.append(queryBlock(record.query), factsBlock(record));
  if (record.diagnosis) box.append(el("p", { class: "callout" }, visible(record.diagnosis)));
  if (record.best !== undefined) box.append(answerBlock(record));
  if (candidates.length) box.append(treeChart(record, (place) => openCard(box, place)));
  for (let number = 0; number <= record.rounds; number += 1) box.append(...roundBlock(record, number));
  return box;
}

function queryBlock(turns) {
  const named = turns.length > 1 || (turns[0][0] && turns[0][0] !== "user");
  return el(
    "section",
    { class: "query" },
    el("h3", {}, "Query"),
    turns.map(([role, text]) => [named && role ? el("h5", {}, brief(role, 80)) : null, longText(text)]),
  );
}

function factsBlock(record) {
  const { usage = {}, reward_usage: judged = {}, seconds: spent = {} } = record;
  const best = record.candidates?.[record.best]?.reward;
  const first = record.candidates?.[record.first]?.reward;
  const total = (use) => (use.prompt_tokens ?? 0) + (use.completion_tokens ?? 0);
  const facts = [
    [
      "Reward",
      first === undefined || record.first === record.best
        ? reward(best)
        : `${reward(first)} → ${reward(best)} (${signedReward(best - first)})`,
    ],
    ["Stopped by", stopText(record.stop)],
    [
      "Tokens",
      `${usage.estimated ? "about " : ""}${whole(total(usage))} (${whole(usage.prompt_tokens ?? 0)} prompt` +
        `${usage.cached_tokens ? `, ${whole(usage.cached_tokens)} of them cached` : ""}, ${whole(usage.completion_tokens ?? 0)} completion)`,
    ],
    total(judged) > 0 && [
      "Reward model",
      `${whole(total(judged))} tokens, ${plural(judged.calls ?? 0, "pair")} scored`,
    ],
    ["Calls", `${whole(usage.calls ?? 0)} in ${plural(usage.requests ?? 0, "request")}`],
    Object.keys(spent).length > 0 && ["Time", timeText(spent)],
    record.seed !== undefined && ["Seed", String(record.seed)],
  ].filter(Boolean);
  return el(
    "dl",
    { class: "facts" },
    facts.map(([name, value]) => [el("dt", {}, name), el("dd", {}, value)]),
  );
}

function timeText({ total, ...parts }) {
  const shown = Object.entries(parts)
    .filter(([, value]) => value > 0)
    .sort((a, b) => b[1] - a[1])
    .map(([task, value]) => `${brief(task, 80)} ${seconds(value)}`);
  return seconds(total) + (shown.length ? ` (${shown.join(", ")})` : "");
}

function answerBlock(record) {
  const best = record.candidates[record.best];
  const first = record.first === record.best ? undefined : record.candidates[record.first]?.text;
  return el(
    "section",
    { class: "answer" },
    el("h3", {}, `Answer: #${record.best}, reward ${reward(best.reward)}`),
    textViews(best.text ?? "", first, "Changes from the first best"),
  );
}

function openCard(box, place) {
  const card = box.querySelector(`#candidate-${place}`);
  card.open = true;
  card.scrollIntoView({ block: "center" });
  card.querySelector("summary").focus();
}

// A round: what was contrasted, what was said of it, what came of it.
function roundBlock(record, number) {
  const made = (record.candidates ?? [])
    .map((candidate, place) => ({ candidate, place }))
    .filter(({ candidate }) => (candidate.step ?? 0) === number);
  const steps = (record.steps ?? []).filter((step) => step.number === number);
  if (!made.length && !steps.length) return [];
  const rank = ({ candidate }) => candidate.reward ?? -Infinity;
  const top = made.reduce((a, b) => (rank(b) > rank(a) ? b : a), made[0]);
  return [
    el(
      "section",
      { class: "round" },
      el("h3", {}, number === 0 ? "Round 0: first samples" : `Round ${number}`),
      steps.map((step) => stepBlock(record, step)),
      made.map(({ place }) => candidateCard(record, place, place === record.best && place === top?.place)),
    ),
  ];
}

function stepBlock(record, step) {
  const name = (place) => `#${place} (${reward(record.candidates[place]?.reward)})`;
  const contrast =
    step.chosen === undefined
      ? "No contrast: all rewards are equal."
      : step.rejected === undefined
        ? `${name(step.chosen)} was criticised alone.`
        : `${name(step.chosen)} was held against ${name(step.rejected)}.`;
  return el(
    "div",
    { class: "critique" },
    el("p", { class: "note" }, contrast),
    step.loss ? said("Critique (textual loss)", step.loss) : null,
    step.gradient ? said("Instructions (textual gradient)", step.gradient) : null,
    step.failure ? el("p", { class: "callout bad" }, `This round failed: ${failureText(step.failure)}`) : null,
  );
}

function treeChart(record, open) {
  const named = { sample: "sample", update: "update, with a line from its parent", failed: "no candidate" };
  const kinds = [...new Set(record.candidates.map(kindOf))];
  return chart({
    title: "Rewards by round",
    empty: "Nothing to draw.",
    draw: (width) => drawTree(record, width, open),
    controls: legend([
      ...kinds.map((kind) => [kind, named[kind]]),
      ["ring best", "answer"],
      ["step best", "best so far"],
    ]),
  });
}

function drawTree(record, width, open) {
  const rewards = record.candidates.map((c) => c.reward).filter(Number.isFinite);
  const failed = record.candidates.some((c) => !Number.isFinite(c.reward));
  const y = { range: extent(rewards, 0.1), label: "reward", format: number };
  y.ticks = ticks(...y.range, 4);
  if (failed) y.range[0] -= 0.16 * (y.range[1] - y.range[0]); // a strip for what has no reward
  const rounds = Array.from({ length: record.rounds + 1 }, (_, i) => i);
  const x = { range: [-0.5, record.rounds + 0.5], ticks: rounds, label: "round", format: String };
  const frame = axes({ width, height: failed ? 310 : 280, x, y, label: treeLabel(record), role: "group" });
  if (failed)
    frame.root.append(svg("text", { class: "tick", x: frame.box.left + 4, y: frame.box.bottom - 10 }, "no reward"));
  const places = placeMarks(record, frame, frame.box.bottom - 14);
  frame.root.append(
    svg("path", { class: "curve best step", d: bestPath(record, frame) }),
    ...record.candidates.flatMap((c, i) => (places[c.parent] ? [edge(places[c.parent], places[i])] : [])),
  );
  record.candidates.forEach((candidate, i) => {
    const node = svg(
      "g",
      { class: "node", role: "button", tabindex: 0, "aria-label": nodeLines(record, i).flat().join(" ") },
      record.best === i ? svg("circle", { class: "ring best", cx: places[i][0], cy: places[i][1], r: 9 }) : null,
      mark(kindOf(candidate), ...places[i]),
    );
    withTip(node, nodeLines(record, i));
    node.addEventListener("click", () => open(i));
    node.addEventListener("keydown", (event) => {
      if (event.key === "Enter" || event.key === " ") {
        event.preventDefault();
        open(i);
      }
    });
    frame.root.append(node);
  });
  return frame.root;
}

function placeMarks(record, frame, below) {
  const seen = new Map();
  const many = new Map();
  for (const { step = 0 } of record.candidates) many.set(step, (many.get(step) ?? 0) + 1);
  return record.candidates.map(({ step = 0, reward: value }) => {
    const k = seen.get(step) ?? 0;
    seen.set(step, k + 1);
    const offset = many.get(step) > 1 ? (k / (many.get(step) - 1) - 0.5) * 0.56 : 0;
    return [frame.x(step + offset), Number.isFinite(value) ? frame.y(value) : below];
  });
}

function edge([x1, y1], [x2, y2]) {
  const middle = (x1 + x2) / 2;
  return svg("path", { class: "edge", d: `M${x1},${y1}C${middle},${y1} ${middle},${y2} ${x2},${y2}` });
}

function bestPath(record, frame) {
  const points = [];
  let top = -Infinity;
  for (let number = 0; number <= record.rounds; number += 1) {
    for (const c of record.candidates) if ((c.step ?? 0) === number && c.reward > top) top = c.reward;
    if (top > -Infinity) points.push([frame.x(number - 0.5), frame.y(top)], [frame.x(number + 0.5), frame.y(top)]);
  }
  return path(points);
}

function nodeLines(record, place) {
  const candidate = record.candidates[place];
  return [
    [`#${place} ${kindText(candidate)}`, candidate.failure ? "no candidate" : reward(candidate.reward)],
    ...rolesOf(record, place).map(([, name]) => name),
    candidate.failure ? failureText(candidate.failure).slice(0, 160) : snippet(candidate.text ?? "", 100),
  ];
}

function treeLabel(record) {
  const best = record.candidates[record.best]?.reward;
  return (
    `${plural(record.candidates.length, "candidate")} over ${plural(record.rounds, "round")} of updates` +
    (best === undefined ? "" : `; the best has reward ${reward(best)}`)
  );
}
