// The table of queries: sorted, filtered, and drawn only where it is looked at, so that 10,000 are as quick as ten.

const HEADS = [
  ["place", "#", 56],
  ["query", "Query", null],
  ["first", "First best", 92],
  ["best", "Answer", 80],
  ["gain", "Gain", 74],
  ["winner", "Came from", 106],
  ["rounds", "Rounds", 80],
  ["failed", "Failed", 80],
  ["tokens", "Tokens", 80],
  ["seconds", "Seconds", 86],
  ["stop", "Stopped by", 110],
];
const WORDY = new Set(["query", "winner", "stop"]);
const LINE = 35; // pixels a line; page.css gives cells 34 and a border
const ON_PAPER = 60;

const nameOf = (row) => (row.name ? visible(row.name) : `#${row.place}`);

function queryTable(rows, open) {
  const state = {
    text: "",
    stop: "",
    winner: "",
    failure: "",
    gain: null,
    key: "place",
    down: false,
    at: 0,
    shown: rows,
    printing: false,
  };
  const body = el("tbody");
  const heads = HEADS.map(([key, name, width]) => headCell(key, name, width, () => sort(key)));
  const table = el(
    "table",
    { class: "queries", "aria-label": "Queries" },
    el(
      "colgroup",
      {},
      HEADS.map(([key, , width]) => column(key === "place" && rows.some((row) => row.name) ? 130 : width)),
    ),
    el("thead", {}, el("tr", { "aria-rowindex": 1 }, heads)),
    body,
  );
  const scroller = el("div", { class: "scroller", scroll: () => draw() }, table);
  const status = el("span", { role: "status" });
  const controls = filterControls(rows, state, () => refresh());

  function refresh() {
    state.shown = rows.filter((row) => matches(row, state)).sort(order(state));
    state.at = 0;
    scroller.scrollTop = 0;
    status.textContent =
      state.shown.length === rows.length
        ? plural(rows.length, "query", "queries")
        : `${whole(state.shown.length)} of ${plural(rows.length, "query", "queries")}`;
    table.setAttribute("aria-rowcount", String(state.shown.length + 1));
    heads.forEach((head, i) =>
      head.setAttribute("aria-sort", HEADS[i][0] !== state.key ? "none" : state.down ? "descending" : "ascending"),
    );
    controls.update();
    draw();
  }
  function draw() {
    const high = scroller.clientHeight || 600;
    const first = state.printing ? 0 : Math.max(0, Math.floor(scroller.scrollTop / LINE) - 8);
    const last = Math.min(
      state.shown.length,
      state.printing ? ON_PAPER : Math.ceil((scroller.scrollTop + high) / LINE) + 8,
    );
    const focused = body.contains(document.activeElement);
    body.replaceChildren(
      spacer(first),
      ...state.shown.slice(first, last).map((row, i) => line(row, first + i, state, open)),
      state.shown.length
        ? spacer(state.printing ? 0 : state.shown.length - last)
        : el(
            "tr",
            {},
            el("td", { class: "words", colspan: HEADS.length }, rows.length ? "No query matches." : "No queries."),
          ),
    );
    if (focused) body.querySelector('[tabindex="0"]')?.focus({ preventScroll: true });
  }
  function sort(key) {
    state.down = state.key === key ? !state.down : !WORDY.has(key) && key !== "place";
    state.key = key;
    refresh();
  }
  function move(to) {
    state.at = Math.max(0, Math.min(state.shown.length - 1, to));
    const top = state.at * LINE;
    const room = scroller.clientHeight - 2 * LINE;
    if (top < scroller.scrollTop) scroller.scrollTop = top;
    if (top > scroller.scrollTop + room) scroller.scrollTop = top - room;
    draw();
    body.querySelector('[tabindex="0"]')?.focus({ preventScroll: true });
  }
  body.addEventListener("keydown", (event) => {
    const page = Math.max(1, Math.floor(scroller.clientHeight / LINE) - 2);
    const by = { ArrowDown: 1, ArrowUp: -1, PageDown: page, PageUp: -page, Home: -Infinity, End: Infinity }[event.key];
    if (by === undefined) return;
    event.preventDefault();
    move(by === Infinity ? state.shown.length - 1 : by === -Infinity ? 0 : state.at + by);
  });
  body.addEventListener("focusin", (event) => {
    state.at = Number(event.target.closest("tr")?.dataset.at ?? state.at);
  });
  window.addEventListener("beforeprint", () => {
    state.printing = true;
    draw();
  });
  window.addEventListener("afterprint", () => {
    state.printing = false;
    draw();
  });
  new ResizeObserver(() => draw()).observe(scroller);
  refresh();
  const filter = (change) => {
    Object.assign(state, change);
    refresh();
    box.scrollIntoView({ block: "start" });
  };
  const box = el(
    "section",
    { id: "queries" },
    el("h2", {}, "Queries"),
    el("div", { class: "filters" }, controls.nodes, status),
    scroller,
    rows.length > ON_PAPER
      ? el("p", { class: "note only-print" }, `On paper: the first ${ON_PAPER} queries of the table as it was sorted.`)
      : null,
  );
  // The one after `row`, or before it, in the order shown.
  const beside = (row, by) => state.shown[state.shown.indexOf(row) + by];
  return { box, filter, beside };
}

const column = (width) => {
  const node = el("col");
  if (width) node.style.width = `${width}px`;
  return node;
};

function spacer(lines) {
  const cell = el("td", { colspan: HEADS.length });
  cell.style.height = `${lines * LINE}px`;
  return el("tr", { class: "spacer", "aria-hidden": "true", hidden: lines === 0 }, cell);
}

const headCell = (key, name, width, sort) =>
  el(
    "th",
    { scope: "col", class: WORDY.has(key) ? "words" : null, "data-key": key },
    el("button", { type: "button", click: sort }, name),
  );

function line(row, at, state, open) {
  const shownQuery = row.query ? visible(row.query) : row.stop === "error" ? "(no trajectory)" : "(empty)";
  const cells = [
    ["", row.name ? visible(row.name) : whole(row.place)],
    [
      "words",
      el(
        "button",
        { type: "button", class: "open", dir: "auto", tabindex: at === state.at ? 0 : -1, title: shownQuery },
        shownQuery,
      ),
    ],
    ["", reward(row.first)],
    ["", reward(row.best)],
    [row.gain > 0 ? "good" : "", row.gain === null ? NONE : signedReward(row.gain)],
    ["words", WINNERS[row.winner] ?? NONE],
    ["", whole(row.rounds)],
    [row.failed ? "bad" : "", row.candidates ? `${whole(row.failed)} of ${whole(row.candidates)}` : NONE],
    ["", row.tokens ? whole(row.tokens) : NONE],
    ["", row.seconds === null ? NONE : precise(row.seconds)],
    [row.stop === "error" ? "words bad" : "words", visible(row.stop)],
  ];
  return el(
    "tr",
    {
      class: "line",
      "aria-rowindex": at + 2,
      "data-at": at,
      click: () => {
        state.at = at;
        open(row);
      },
    },
    cells.map(([kind, cell]) => el("td", { class: kind || null }, cell)),
  );
}

function matches(row, { text, stop, winner, failure, gain }) {
  return (
    (!text || row.search.includes(text)) &&
    (!stop || row.stop === stop) &&
    (!winner || row.winner === winner) &&
    (!failure || Object.hasOwn(row.failures, failure)) &&
    (!gain || inRange(row.gain, gain))
  );
}

// Zero has a bar of its own, and is in no other.
const inRange = (value, [low, high]) =>
  value !== null && (low === 0 && high === 0 ? value === 0 : value !== 0 && value >= low - 1e-9 && value < high - 1e-9);

// By the chosen column; what has no value last either way, and equals in the order of the run.
function order({ key, down }) {
  const sign = down ? -1 : 1;
  const missing = (value) => value === null || value === "";
  return (a, b) => {
    const [x, y] = [a[key], b[key]];
    if (missing(x) || missing(y)) return missing(x) - missing(y) || a.place - b.place;
    const by = typeof x === "string" ? x.localeCompare(y) : x - y;
    return sign * by || a.place - b.place;
  };
}
