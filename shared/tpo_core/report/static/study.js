// A page of tables and charts.

function studyTable({ title, note, head, rows }) {
  const cells = (row) => row.map((cell) => visible(cell));
  return el(
    "section",
    {},
    el("h2", {}, visible(title)),
    note ? el("p", { class: "note" }, visible(note)) : null,
    el("div", { class: "wide results" }, numbersTable([cells(head), ...rows.map(cells)])),
  );
}

drawPage((app) => {
  const data = readData("figures");
  document.querySelector("#head h1").after(themeSwitch());
  document
    .getElementById("head")
    .append(
      el(
        "dl",
        { class: "about" },
        Object.entries(data.about).map(([name, value]) =>
          el("div", {}, el("dt", {}, visible(name)), el("dd", {}, visible(value))),
        ),
      ),
    );
  app.replaceChildren(
    data.warnings.length
      ? el(
          "section",
          { class: "limits" },
          el("h2", {}, "What these figures cannot show"),
          el(
            "ul",
            {},
            data.warnings.map((warning) => el("li", {}, visible(warning))),
          ),
        )
      : "",
    ...data.tables.map(studyTable),
    el("h2", {}, data.charts.length ? "Figures" : ""),
    el("div", { class: "charts" }, data.charts.map(linesChart)),
    el("p", { class: "note foot" }, "Test-Time Preference Optimization, tpo. Intervals are of 95\u00a0% unless said otherwise."),
  );
});
