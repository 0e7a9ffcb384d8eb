// The queries: a line each for the table, and their trees, packed, by demand.

const COLUMNS = [
  "place",
  "name",
  "query",
  "first",
  "best",
  "winner",
  "rounds",
  "candidates",
  "failures",
  "tokens",
  "seconds",
  "stop",
];

function readRows() {
  const rows = [];
  document.querySelectorAll("script.rows").forEach((block, chunk) => {
    JSON.parse(block.textContent).forEach((values, slot) => {
      const row = Object.fromEntries(COLUMNS.map((name, i) => [name, values[i]]));
      row.gain = row.first === null || row.best === null ? null : row.best - row.first;
      row.failed = Object.values(row.failures).reduce((sum, count) => sum + count, 0);
      row.search = `${row.name} ${row.query}`.toLowerCase();
      rows.push(Object.assign(row, { chunk, slot }));
    });
  });
  return rows;
}

const unpacked = new Map(); // the last few chunks, by number

async function treeData({ chunk, slot }) {
  if (!unpacked.has(chunk)) {
    if (unpacked.size > 8) unpacked.delete(unpacked.keys().next().value);
    unpacked.set(chunk, unpack(document.querySelectorAll("script.trees")[chunk].textContent));
  }
  return (await unpacked.get(chunk))[slot];
}

async function unpack(packed) {
  if (typeof DecompressionStream === "undefined")
    throw new Error("this browser is too old: it has no DecompressionStream");
  const bytes = Uint8Array.from(atob(packed), (c) => c.charCodeAt(0));
  const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"));
  return JSON.parse(await new Response(stream).text());
}
