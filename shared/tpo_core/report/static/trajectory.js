// The page of one trajectory.

document.getElementById("head").append(themeSwitch());
drawPage((app) => {
  app.replaceChildren(
    treeOf(readData("trajectory")),
    el(
      "p",
      { class: "note foot" },
      "The reward shown is the one that was optimised, and a best of many is never below a " +
        "best of few: a gain on one query does not show that answers are better. Test-Time Preference Optimization, tpo.",
    ),
  );
});
