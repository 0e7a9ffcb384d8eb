// Word by word, what an update changed. Myers' greedy algorithm with a bound on the edits, so that the time is linear
// in the texts; small islands of equal words between larger changes are joined to them, so that it reads as prose.

const WORDS = /[\p{Script=Han}\p{Script=Hiragana}\p{Script=Katakana}\p{Script=Thai}]|[\p{L}\p{M}\p{N}_'’-]+|\s+|[^]/gu;
const MOST_EDITS = 2500;

// [{ kind: "same" | "gone" | "new", text }], or null where the texts have too little in common to be compared.
function diffWords(before, after) {
  const a = before.match(WORDS) ?? [];
  const b = after.match(WORDS) ?? [];
  let head = 0;
  while (head < a.length && head < b.length && a[head] === b[head]) head += 1;
  let tail = 0;
  while (tail < a.length - head && tail < b.length - head && a[a.length - 1 - tail] === b[b.length - 1 - tail])
    tail += 1;
  const middle = editScript(a.slice(head, a.length - tail), b.slice(head, b.length - tail));
  if (middle === null) return null;
  const runs = [["same", a.slice(0, head)], ...middle, ["same", a.slice(a.length - tail)]];
  return joinIslands(group(runs)).map(([kind, words]) => ({ kind, text: words.join("") }));
}

function editScript(a, b) {
  const most = Math.min(a.length + b.length, MOST_EDITS);
  const reach = new Int32Array(2 * most + 3); // furthest place in a on each diagonal
  const trace = [];
  for (let edits = 0; edits <= most; edits += 1) {
    for (let k = -edits; k <= edits; k += 2) {
      const down = k === -edits || (k !== edits && reach[most + k] < reach[most + k + 2]);
      let x = down ? reach[most + k + 2] : reach[most + k] + 1;
      while (x < a.length && x - k < b.length && a[x] === b[x - k]) x += 1;
      reach[most + k + 1] = x;
      if (x >= a.length && x - k >= b.length) {
        trace.push(reach.slice(most - edits, most + edits + 3));
        return walkBack(a, b, trace);
      }
    }
    trace.push(reach.slice(most - edits, most + edits + 3));
  }
  return null;
}

function walkBack(a, b, trace) {
  const runs = [];
  let x = a.length;
  let y = b.length;
  for (let edits = trace.length - 1; edits > 0; edits -= 1) {
    const at = (k) => trace[edits - 1][k + edits]; // reach on diagonal k after one edit less
    const k = x - y;
    const down = k === -edits || (k !== edits && at(k - 1) < at(k + 1));
    const from = down ? at(k + 1) : at(k - 1);
    const start = down ? from : from + 1;
    runs.push(["same", a.slice(start, x)]);
    runs.push(down ? ["new", [b[start - k - 1]]] : ["gone", [a[from]]]);
    x = from;
    y = down ? from - k - 1 : from - k + 1;
  }
  runs.push(["same", a.slice(0, x)]);
  return runs.reverse();
}

// Each change as at most one "gone" and one "new", in this order.
function group(runs) {
  const grouped = [];
  let gone = [];
  let fresh = [];
  const flush = () => {
    if (gone.length) grouped.push(["gone", gone]);
    if (fresh.length) grouped.push(["new", fresh]);
    gone = [];
    fresh = [];
  };
  for (const [kind, words] of runs) {
    if (kind === "gone") gone.push(...words);
    else if (kind === "new") fresh.push(...words);
    else if (words.length) {
      flush();
      const last = grouped.at(-1);
      if (last?.[0] === "same") for (const word of words) last[1].push(word);
      else grouped.push(["same", words.slice()]);
    }
  }
  flush();
  return grouped;
}

function joinIslands(runs) {
  const size = (words) => words.filter((word) => word.trim()).length;
  const joined = [];
  runs.forEach(([kind, words], i) => {
    const small = kind === "same" && i > 0 && i < runs.length - 1 && size(words) <= 2;
    const around = (step) => {
      let most = 0;
      for (let j = i + step; runs[j] && runs[j][0] !== "same"; j += step) most = Math.max(most, size(runs[j][1]));
      return most;
    };
    if (small && size(words) < around(-1) && size(words) < around(1)) joined.push(["gone", words], ["new", words]);
    else joined.push([kind, words]);
  });
  return group(joined);
}

// A candidate beside its parent.
function diffBlock(before, after) {
  const runs = diffWords(before, after);
  if (runs === null)
    return el("p", { class: "note" }, "The two have too little in common to be compared word by word.");
  const tags = { same: "span", gone: "del", new: "ins" };
  return el(
    "div",
    { class: "text diff", dir: "auto" },
    runs.map(({ kind, text }) => el(tags[kind], {}, text.length > FIRST_PIECE ? [longText(text)] : textNodes(text))),
  );
}
