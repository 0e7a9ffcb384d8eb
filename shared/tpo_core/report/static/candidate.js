// One candidate as a card: folded, its reward and the beginning of its text; open, all that is known of it.

const REASONS = {
  error: "the request failed",
  empty: "the response is empty",
  placeholder: "a placeholder instead of an answer",
  length: "cut off by the token limit",
  unparsable: "could not be read",
  tool_call: "calls a tool",
  content_filter: "withheld by a content filter",
  deadline: "not there in time",
  missing: "the server brought fewer answers than asked",
  unscored: "has no reward",
};

function failureText([reason, message]) {
  const known = REASONS[reason] ? `${reason} (${REASONS[reason]})` : brief(reason, 80);
  return message ? `${known}: ${brief(message, 2000)}` : known;
}

const kindOf = (candidate) => (candidate.failure ? "failed" : candidate.update ? "update" : "sample");

function kindText(candidate) {
  if (!candidate.update) return candidate.step ? "later sample" : "sample";
  return candidate.parent === undefined ? "update" : `update of #${candidate.parent}`;
}

// What a candidate was to the loop: the answer, a round's chosen or its rejected; and whose instructions it follows again.
function rolesOf(record, place) {
  const roles = [];
  if (record.best === place) roles.push(["best", "answer"]);
  if (record.first === place && record.best !== place) roles.push(["first", "first best"]);
  for (const role of ["chosen", "rejected"]) {
    const rounds = (record.steps ?? []).filter((step) => step[role] === place).map((step) => step.number);
    if (rounds.length) roles.push([role, `${role} in round${rounds.length > 1 ? "s" : ""} ${rounds.join(", ")}`]);
  }
  const told = record.candidates[place].told;
  if (told !== undefined) roles.push(["told", `instructions of round ${told}`]);
  return roles;
}

const snippet = (text, most = 140) => {
  const line = text
    .slice(0, 4 * most)
    .trim()
    .replace(/\s+/g, " ");
  return visible(line.length > most || text.length > 4 * most ? head(line, most - 1) + "…" : line);
};

function candidateCard(record, place, open) {
  const candidate = record.candidates[place];
  const parent = record.candidates[candidate.parent];
  const delta =
    parent && Number.isFinite(candidate.reward) && Number.isFinite(parent.reward)
      ? candidate.reward - parent.reward
      : null;
  const body = el("div", { class: "body" });
  const card = el(
    "details",
    { class: `card ${kindOf(candidate)}`, id: `candidate-${place}`, open },
    el(
      "summary",
      {},
      el("span", { class: "place", title: `trajectory.candidates[${place}]` }, `#${place}`),
      icon(kindOf(candidate)),
      el("b", { class: "reward" }, candidate.failure ? "failed" : reward(candidate.reward)),
      el(
        "span",
        { class: `delta ${delta > 0 ? "up" : delta < 0 ? "down" : ""}` },
        delta === null ? "" : signedReward(delta),
      ),
      el("span", { class: "kind" }, kindText(candidate)),
      rolesOf(record, place).map(([role, name]) => el("span", { class: `role ${role}` }, name)),
      el(
        "span",
        { class: "snippet", dir: "auto" },
        candidate.failure ? failureText(candidate.failure) : snippet(candidate.text ?? ""),
      ),
    ),
    body,
  );
  const fill = () => {
    if (card.open && !body.firstChild) body.append(...candidateBody(record, candidate, parent));
  };
  card.addEventListener("toggle", fill);
  card.fill = fill;
  fill();
  return card;
}

function candidateBody(record, candidate, parent) {
  const text = candidate.text ?? "";
  const facts = [
    candidate.failure && ["No candidate", failureText(candidate.failure)],
    candidate.gold !== undefined && ["Held-out reward", reward(candidate.gold)],
    candidate.heads && [
      "Objectives",
      Object.entries(candidate.heads)
        .map(([k, v]) => `${brief(k, 80)} ${reward(v)}`)
        .join(", "),
    ],
    candidate.truncated && ["Scored", "with a shortened prompt"],
  ].filter(Boolean);
  return [
    facts.length
      ? el(
          "dl",
          { class: "facts" },
          facts.map(([name, value]) => [el("dt", {}, name), el("dd", {}, value)]),
        )
      : null,
    text ? textViews(text, parent?.text, "Changes from its parent") : el("p", { class: "note" }, "No text."),
    candidate.feedback ? said("What the reward model said", candidate.feedback) : null,
  ].filter(Boolean);
}

const said = (name, text) => el("section", { class: "said" }, el("h5", {}, name), longText(text));

// A text, or what it changed of another, whichever is asked for; the comparison is made when it is first seen.
function textViews(text, before, name) {
  const box = el("div", { class: "views" });
  const show = (node) => {
    box.replaceChildren(node);
  };
  if (!before || before === text) {
    show(longText(text));
    return before
      ? el(
          "div",
          {},
          el(
            "p",
            { class: "note" },
            `The same text as ${name === "Changes from its parent" ? "its parent" : "the first best"}.`,
          ),
          box,
        )
      : box;
  }
  return el(
    "div",
    {},
    switcher("View", ["Text", name], (i) => show(i ? diffBlock(before, text) : longText(text))),
    box,
  );
}

function icon(kind) {
  return svg(
    "svg",
    { viewBox: "0 0 14 14", width: 14, height: 14, class: "icon", "aria-hidden": "true" },
    mark(kind, 7, 7, 4.5),
  );
}
