// The page of one trajectory.

{
  const app = document.getElementById("app");
  document.getElementById("head").append(themeSwitch());
  try {
    app.replaceChildren(
      treeOf(readData("trajectory")),
      el(
        "p",
        { class: "note foot" },
        "The reward shown is the one that was optimised, and a best of many is never below a " +
          "best of few: a gain on one query does not show that answers are better. Test-Time Preference Optimization, tpo.",
      ),
    );
  } catch (error) {
    app.replaceChildren(el("p", { class: "callout bad" }, `This page could not be drawn: ${error.message}`));
    throw error;
  } finally {
    app.removeAttribute("aria-busy");
    placeTip();
    unfoldForPrint();
  }
}
