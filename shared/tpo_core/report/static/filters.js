// What narrows the table down: words of the query, how its loop stopped, where its answer came from, what failed.

function filterControls(rows, state, refresh) {
  const search = el("input", {
    type: "search",
    placeholder: "Search names and beginnings of queries",
    "aria-label": "Search queries",
    input: () => {
      state.text = search.value.trim().toLowerCase();
      refresh();
    },
  });
  const select = (key, all, values, names = {}) =>
    el(
      "select",
      {
        "aria-label": all,
        "data-key": key,
        change: (event) => {
          state[key] = event.target.value;
          refresh();
        },
      },
      el("option", { value: "" }, all),
      values.map((value) => el("option", { value }, names[value] ?? visible(value))),
    );
  const distinct = (values) => [...new Set(values)].filter(Boolean).sort().slice(0, 200);
  const stop = select("stop", "Any end", distinct(rows.map((row) => row.stop)));
  const winner = select("winner", "Any answer", distinct(rows.map((row) => row.winner)), WINNERS);
  const failure = select("failure", "Any failure", distinct(rows.flatMap((row) => Object.keys(row.failures))));
  const chip = el("button", {
    type: "button",
    class: "chip",
    click: () => {
      state.gain = null;
      refresh();
    },
  });
  const clear = el(
    "button",
    {
      type: "button",
      click: () => {
        Object.assign(state, { text: "", stop: "", winner: "", failure: "", gain: null });
        refresh();
      },
    },
    "Clear",
  );
  function update() {
    if (search.value.trim().toLowerCase() !== state.text) search.value = state.text;
    stop.value = state.stop;
    winner.value = state.winner;
    failure.value = state.failure;
    chip.hidden = !state.gain;
    if (state.gain) chip.textContent = `${gainText(state.gain)} ✕`;
    clear.hidden = !(state.text || state.stop || state.winner || state.failure || state.gain);
  }
  return { nodes: [search, stop, winner, failure, chip, clear], update };
}

function gainText([low, high]) {
  if (low === 0 && high === 0) return "No gain";
  if (high === Infinity) return `Gain ${number(low)} or more`;
  return low === -Infinity ? `Gain below ${number(high)}` : `Gain ${number(low)} to ${number(high)}`;
}
