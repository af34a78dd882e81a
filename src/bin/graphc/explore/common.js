// Elements, numbers as text, and the data of the page.
const h = (tag, attrs = {}, ...children) => fill(document.createElement(tag), attrs, children);
const s = (tag, attrs = {}, ...children) =>
  fill(document.createElementNS("http://www.w3.org/2000/svg", tag), attrs, children);
function fill(element, attrs, children) {
  for (const [key, value] of Object.entries(attrs)) {
    if (value === undefined || value === null || value === false) continue;
    if (key.startsWith("on")) element.addEventListener(key.slice(2), value);
    else if (key === "data") Object.assign(element.dataset, value);
    else element.setAttribute(key, value === true ? "" : value);
  }
  element.append(...children.flat(Infinity).filter((c) => c !== null && c !== undefined && c !== false));
  return element;
}
const put = (id, ...children) => { const element = $(id); element.replaceChildren(); return fill(element, {}, children); };
const $ = (id) => document.getElementById(id);

async function unpack(id) {
  const bytes = Uint8Array.from(atob($(id).textContent.trim()), (c) => c.charCodeAt(0));
  const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"));
  return JSON.parse(await new Response(stream).text());
}

function scaled(x, units, base) {
  let i = 0;
  while (Math.abs(x) >= base && i + 1 < units.length) { x /= base; i++; }
  return `${x >= 100 || (i === 0 && Number.isInteger(x)) ? Math.round(x) : x.toPrecision(3).replace(/\.?0+$/, "")} ${units[i]}`;
}
const bytesText = (b) => scaled(b, ["B", "KiB", "MiB", "GiB"], 1024);
const countText = (n) => scaled(n, ["", "k", "M", "G", "T"], 1000).trim();
const timeText = (us) => (us >= 1000 ? `${(us / 1000).toPrecision(3)} ms` : us >= 10 ? `${us.toFixed(1)} µs` : `${us.toFixed(2)} µs`);
const percent = (x) => `${(100 * x).toFixed(x < 0.1 ? 1 : 0)} %`;

// A node as an object, from its row.
function nodesOf(graph) {
  graph.list ??= graph.nodes.map(([op, name, attrs, type, scope, loc, operands, phase, changed, kernel], id) =>
    ({ id, op, name, attrs, type, scope, loc, operands, phase, changed, kernel, users: [] }));
  if (!graph.linked) {
    graph.linked = true;
    for (const n of graph.list) for (const o of n.operands) graph.list[o].users.push(n.id);
  }
  return graph.list;
}
const LEAVES = new Set(["input", "read_state", "constant", "iota"]);
const labelOf = (n) => (n.name ? `%${n.name}` : `%${n.id}`);
const PHASES = ["forward", "backward"];

function tip(event, ...content) {
  const box = $("tip");
  if (!event) { box.hidden = true; return; }
  box.replaceChildren(...content);
  box.hidden = false;
  const { width, height } = box.getBoundingClientRect();
  box.style.left = `${Math.max(8, Math.min(event.clientX + 14, innerWidth - width - 8))}px`;
  box.style.top = `${event.clientY + 18 + height > innerHeight ? event.clientY - height - 12 : event.clientY + 18}px`;
}
