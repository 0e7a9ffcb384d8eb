// The page of a run.

function tiles(s) {
  const tile = (name, value, under) =>
    el(
      "div",
      { class: "tile" },
      el("div", { class: "name" }, name),
      el("div", { class: "value" }, value),
      el("div", { class: "under" }, under),
    );
  const failed = Object.values(s.failures).reduce((a, b) => a + b, 0);
  const range = (mean) => (Number.isFinite(mean.low) ? `${interval(mean)} (95\u00a0%)` : "no interval: too few");
  return el(
    "div",
    { class: "tiles" },
    tile("Queries", whole(s.queries), s.answered === s.queries ? "all answered" : `${whole(s.answered)} answered`),
    tile("Mean gain in reward", s.gain.n ? signed(s.gain.mean) : NONE, s.gain.n ? range(s.gain) : "nothing scored"),
    s.gold_gain.n ? tile("Gain by the held-out reward", signed(s.gold_gain.mean), range(s.gold_gain)) : null,
    tile(
      "An update won",
      percent(s.update_won.share),
      s.update_won.of ? `${percent(s.update_won.low)} to ${percent(s.update_won.high)} (95\u00a0%)` : "nothing scored",
    ),
    tile(
      "Tokens",
      (s.estimated_tokens ? "≈ " : "") + short(s.tokens),
      s.queries ? `${whole(Math.round(s.tokens / s.queries))} a query` : "",
    ),
    s.seconds.n ? tile("Seconds a query", precise(s.seconds.mean), range(s.seconds)) : null,
    tile(
      "Failed candidates",
      s.candidates ? percent(failed / s.candidates, 1) : NONE,
      `${whole(failed)} of ${whole(s.candidates)}`,
    ),
  );
}

const limits = (caveats) =>
  caveats.length
    ? el(
        "section",
        { class: "limits" },
        el("h2", {}, "What this page cannot show"),
        el(
          "ul",
          {},
          caveats.map((text) => el("li", {}, text)),
        ),
      )
    : null;

const aboutList = (about) =>
  el(
    "dl",
    { class: "about" },
    Object.entries(about).map(([name, value]) =>
      el("div", {}, el("dt", {}, visible(name)), el("dd", {}, visible(value))),
    ),
  );

// The sheet with one query's tree. The address names the query, so that a tree can be linked to and Back closes it.
function sheet(rows, beside) {
  const content = el("div");
  const title = el("h2", { tabindex: -1 });
  const step = (by, name) =>
    el(
      "button",
      {
        type: "button",
        click: () => {
          const row = beside(shown, by);
          if (row) open(row);
        },
      },
      name,
    );
  const [previous, next] = [step(-1, "Previous"), step(1, "Next")];
  const dialog = el(
    "dialog",
    {
      "aria-label": "One query",
      close: () => {
        placeTip();
        if (location.hash) setAddress("");
      },
    },
    el(
      "div",
      { class: "sheet-head" },
      title,
      previous,
      next,
      el("button", { type: "button", click: () => dialog.close() }, "Close"),
    ),
    content,
  );
  dialog.addEventListener("click", (event) => {
    if (event.target === dialog) dialog.close();
  });
  let shown = null;
  async function open(row) {
    shown = row;
    title.textContent = `Query ${nameOf(row)}`;
    previous.disabled = !beside(row, -1);
    next.disabled = !beside(row, 1);
    content.replaceChildren(el("p", { class: "empty" }, "Unpacking …"));
    if (!dialog.open) dialog.showModal();
    placeTip(dialog);
    title.focus();
    if (location.hash !== `#${row.place}`) setAddress(`#${row.place}`);
    const tree = await treeData(row).then(treeOf, (error) =>
      el("p", { class: "callout bad" }, `This query's tree cannot be read: ${error.message}`),
    );
    if (shown === row) content.replaceChildren(tree);
  }
  function follow() {
    const row = /^#\d+$/.test(location.hash) ? rows[Number(location.hash.slice(1))] : undefined;
    if (row && (row !== shown || !dialog.open)) open(row);
    if (!row && dialog.open) dialog.close();
  }
  window.addEventListener("popstate", follow);
  return { dialog, open, follow };
}

function setAddress(hash) {
  try {
    if (hash) history.pushState(null, "", hash);
    else history.replaceState(null, "", location.pathname + location.search);
  } catch {
    /* a frame without an address of its own */
  }
}

drawPage((app) => {
  const summary = readData("summary");
  const rows = readRows();
  const table = queryTable(rows, (row) => panel.open(row));
  const panel = sheet(rows, table.beside);
  document.querySelector("#head h1").after(themeSwitch());
  document.getElementById("head").append(aboutList(summary.about));
  app.replaceChildren(
    tiles(summary),
    limits(summary.caveats) ?? "",
    ...figures(summary, rows, table, panel.open),
    table.box,
    el(
      "p",
      { class: "note foot" },
      "Test-Time Preference Optimization, tpo. Rewards are on the reward model's own scale.",
    ),
    panel.dialog,
  );
  panel.follow();
});
