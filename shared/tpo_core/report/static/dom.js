// Building the page. Text from models goes in as text nodes only; nothing here, or anywhere, makes markup of a string.

const SVG = "http://www.w3.org/2000/svg";

function build(node, attributes, children) {
  for (const [name, value] of Object.entries(attributes)) {
    if (value === null || value === undefined || value === false) continue;
    if (typeof value === "function") node.addEventListener(name, value);
    else node.setAttribute(name, value === true ? "" : String(value));
  }
  node.append(...children.flat(Infinity).filter((child) => child !== null && child !== undefined));
  return node;
}

const el = (tag, attributes = {}, ...children) => build(document.createElement(tag), attributes, children);
const svg = (tag, attributes = {}, ...children) => build(document.createElementNS(SVG, tag), attributes, children);

// Characters that are unseen or change how others are read: controls, bidi marks, zero-width and tag characters,
// line separators, halves of surrogate pairs. Joiners that emoji and scripts need (U+200C, U+200D) stay.
const UNSAFE = new RegExp(
  "[\\0-\\x08\\x0b-\\x1f\\x7f-\\x9f\\u00ad\\u034f\\u061c\\u115f\\u1160\\u17b4\\u17b5\\u180e\\u200b\\u200e\\u200f" +
    "\\u2028-\\u202e\\u2060-\\u206f\\u3164\\ufeff\\uffa0\\ufff0-\\ufffb\\ud800-\\udfff" +
    "\\u{e0000}-\\u{e007f}\\u{e0100}-\\u{e01ef}]",
  "gu",
);

const codeOf = (character) => "U+" + character.codePointAt(0).toString(16).toUpperCase().padStart(4, "0");

// One line of text with unsafe characters written out.
const visible = (text) => text.replace(UNSAFE, (found) => `⟨${codeOf(found)}⟩`);

// The beginning of a text that stands where a word is expected, and how much of it there is.
function brief(text, most = 300) {
  return visible(text.length > most ? `${head(text, most)}… (${whole(text.length)} characters)` : text);
}

// Never between the two halves of a character.
const head = (text, end) => text.slice(0, end).replace(/[\ud800-\udbff]$/, "");

const MOST_BOXES = 200;

// Text as nodes, unsafe characters as marked boxes; when there are very many, the rest as plain letters.
function textNodes(text) {
  const lines = text.replaceAll("\r\n", "\n");
  const nodes = [];
  let start = 0;
  for (const found of lines.matchAll(UNSAFE)) {
    if (nodes.length > 2 * MOST_BOXES) break;
    nodes.push(lines.slice(start, found.index), el("span", { class: "unsafe" }, codeOf(found[0])));
    start = found.index + found[0].length;
  }
  nodes.push(visible(lines.slice(start)));
  return nodes;
}

const FIRST_PIECE = 20_000;
const NEXT_PIECE = 200_000;

// A text of any length: long ones by pieces, each on demand and laid out only where it is seen, so that none can stall
// the page. Pieces end with a line where there is one.
function longText(text) {
  const box = el("div", { class: "text", dir: "auto" });
  if (text.length <= FIRST_PIECE * 1.5) return build(box, {}, textNodes(text));
  let shown = 0;
  const more = el("button", { type: "button", class: "more", click: () => grow(NEXT_PIECE) });
  function grow(size) {
    const piece = head(text.slice(shown, shown + size), size);
    const line = piece.lastIndexOf("\n") + 1;
    const end = shown + (shown + piece.length < text.length && line > size / 2 ? line : piece.length);
    more.remove();
    box.append(el("div", { class: "piece" }, textNodes(text.slice(shown, end))));
    shown = end;
    if (shown < text.length) {
      const left = text.length - shown;
      more.textContent = `${whole(left)} more characters: show ${whole(Math.min(NEXT_PIECE, left))}`;
      box.append(more);
    }
  }
  grow(FIRST_PIECE);
  return box;
}

const readData = (id) => JSON.parse(document.getElementById(id).textContent);

// Choices of which one holds; `choose` is called with its index, at once with the first.
function switcher(label, names, choose) {
  const buttons = names.map((name, i) => el("button", { type: "button", click: () => pick(i) }, name));
  function pick(chosen) {
    buttons.forEach((button, i) => button.setAttribute("aria-pressed", String(i === chosen)));
    choose(chosen);
  }
  const group = el("span", { class: "switch", role: "group", "aria-label": label }, buttons);
  pick(0);
  return group;
}

// Light, dark, or what the system says.
function themeSwitch() {
  const schemes = ["light dark", "light", "dark"];
  return switcher("Colours", ["Auto", "Light", "Dark"], (i) => {
    document.documentElement.style.colorScheme = schemes[i];
  });
}

// Everything folded is unfolded on paper.
function unfoldForPrint() {
  let closed = [];
  window.addEventListener("beforeprint", () => {
    closed = [...document.querySelectorAll("details:not([open])")].filter((d) => !d.classList.contains("numbers"));
    for (const details of closed) {
      details.open = true;
      details.fill?.(); // the event of opening comes too late for paper
    }
  });
  window.addEventListener("afterprint", () => closed.forEach((details) => (details.open = false)));
}

// The page is what `fill` puts into it, or says that it could not be drawn.
function drawPage(fill) {
  const app = document.getElementById("app");
  try {
    fill(app);
  } catch (error) {
    app.replaceChildren(el("p", { class: "callout bad" }, `This page could not be drawn: ${error.message}`));
    throw error;
  } finally {
    app.removeAttribute("aria-busy");
    placeTip();
    unfoldForPrint();
  }
}

function plural(count, one, many = one + "s") {
  return `${whole(count)} ${count === 1 ? one : many}`;
}
