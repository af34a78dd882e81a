// The page: stages, search, what is selected.
const data = await unpack("data");
const state = { tab: "graph", view: 0, leaves: false, node: null, kernel: null };

// What the graph can show: the function after each pass, then its kernels, then the bodies of its loops.
const programs = data.programs.map((p, i) => ({ ...p, i }));
const main = programs[programs.length - 1];
const views = [
  ...data.stages.map((stage, i) => ({ key: `s${i}`, title: stage.name, note: stage.note, us: stage.us, graph: stage.graph })),
  ...[main, ...programs.slice(0, -1)].map((p) => ({
    key: `p${p.i}`, title: p === main ? "kernels" : p.name, program: p, graph: p.graph,
    note: `${p.graph.nodes.length} nodes in ${p.steps[1] - p.steps[0]} steps`,
  })),
];
const last = data.stages.length;
state.view = last;
const view = () => views[state.view];
const kernelsOf = (v) => (v.program ? data.kernels : []);

$("title").textContent = `@${data.function}`;
$("facts").textContent = [data.module, data.bindings, data.isa, `${data.threads} thread${data.threads === 1 ? "" : "s"}`, `compiled in ${data.compileMs.toFixed(0)} ms`, `${timeText(data.runUs)} a run`].filter(Boolean).join(" · ");

const actions = { node: selectNode, kernel: selectKernel };
const graphView = new GraphView($("canvas"), actions);

const TABS = [["graph", "Graph"], ["memory", "Memory"], ["time", "Time"]];
$("tabs").append(...TABS.map(([tab, text]) => h("button", { role: "tab", data: { tab }, onclick: () => showTab(tab) }, text)));
$("legend").append(legend([["p0", "forward"], ["p1", "backward"], ["changed", "changed by the pass"]]));

function drawPipeline() {
  const chip = (v, i) => h("button", { class: i === state.view ? "on" : "", title: v.note, onclick: () => showView(i) }, v.title, h("small", {}, `${v.graph.nodes.length}`));
  const bodies = views.slice(last + 1).map((v, i) => chip(v, last + 1 + i));
  $("pipeline").replaceChildren(...views.slice(0, last + 1).flatMap((v, i) => (i ? [h("i", {}, "›"), chip(v, i)] : [chip(v, i)])),
    ...(bodies.length ? [h("span", {}, "bodies"), ...bodies] : []), h("em", {}, view().note));
}

async function showView(i) {
  state.view = i;
  drawPipeline();
  if (state.tab !== "graph") return drawCharts();
  graphView.selected = null;
  await graphView.show(view(), kernelsOf(view()), state.leaves);
}

function showTab(tab) {
  state.tab = tab;
  for (const button of $("tabs").children) button.setAttribute("aria-selected", button.dataset.tab === tab);
  for (const [id, on] of [["canvas", tab === "graph"], ["tools", tab === "graph"], ["pipeline", tab === "graph"], ["charts", tab !== "graph"]]) $(id).hidden = !on;
  return tab === "graph" ? showView(state.view) : drawCharts();
}

function drawCharts() {
  const program = view().program ?? main;
  put("charts", state.tab === "memory"
    ? h("div", {}, programs.length > 1 && h("div", { class: "choice" }, [main, ...programs.slice(0, -1)].map((p) =>
        h("button", { class: p === program ? "on" : "", onclick: () => showView(views.findIndex((v) => v.program === p)) }, p.name))),
      memoryChart(data, program, actions))
    : timeCharts(data, actions, state.kernel));
}

function selectNode(id) {
  const n = nodesOf(view().graph)[id];
  state.node = id;
  state.kernel = n.kernel;
  inspectNode(n);
  if (n.kernel !== null) showCode(data.kernels[n.kernel]);
  graphView.mark([id]);
}

function selectKernel(step) {
  const kernel = data.kernels[step];
  state.kernel = step;
  state.node = null;
  inspectKernel(kernel);
  showCode(kernel);
  if (state.tab === "graph" && view().program?.i === kernel.program) graphView.mark(kernel.nodes);
  if (state.tab === "time") for (const row of document.querySelectorAll("#charts tr.selected")) row.classList.remove("selected");
}

const link = (text, act, title) => h("a", { href: "#", title, onclick: (e) => { e.preventDefault(); act(); } }, text);
const facts = (rows) => h("dl", {}, rows.filter(([, v]) => v !== null && v !== undefined && v !== "").map(([k, v]) => [h("dt", {}, k), h("dd", {}, v)]));

function sourceOf(loc) {
  const m = loc?.match(/^(.*):(\d+):\d+$/);
  if (!m || m[1] !== data.file) return null;
  const lines = data.source.split("\n"), at = +m[2], from = Math.max(1, at - 2);
  return h("pre", { class: "source" }, lines.slice(from - 1, at + 2).map((line, i) => h("div", { class: from + i === at ? "here" : "" }, h("b", {}, `${from + i}`), line)));
}

function inspectNode(n) {
  const nodes = nodesOf(view().graph);
  const nodeLink = (id) => h("li", {}, link(`${labelOf(nodes[id])} = ${nodes[id].op}`, () => jump(id), nodes[id].type), h("small", {}, nodes[id].type));
  const kernel = n.kernel === null ? null : data.kernels[n.kernel];
  put("inspector", 
    h("h2", {}, h("i", { class: `dot p${n.phase}` }), n.op), h("p", { class: "mono" }, `${labelOf(n)} : ${n.type}`),
    facts([["part", PHASES[n.phase]], ["scope", n.scope], ["with", n.attrs], ["at", n.loc], ["change", n.changed ? "new, or with other operands, after this pass" : null]]),
    sourceOf(n.loc),
    kernel && measured(kernel, n.kernel),
    n.operands.length > 0 && h("div", {}, h("h3", {}, "Operands"), h("ul", {}, n.operands.map(nodeLink))),
    n.users.length > 0 && h("div", {}, h("h3", {}, "Used by"), h("ul", {}, n.users.slice(0, 40).map(nodeLink))));
}

function measured(kernel, step) {
  const near = kernel.us ? Math.min(1, kernel.bound / kernel.us) : 0;
  return h("div", { class: "card" }, h("h3", {}, step === undefined ? "Measured" : link(kernel.name, () => selectKernel(step))),
    kernel.us === undefined ? h("p", {}, "It did not run.") : [
      h("div", { class: "gauge", title: "bound as a part of the time" }, h("div", { style: `width:${100 * near}%` })),
      facts([["time", `${timeText(kernel.us)} · ${percent(kernel.share)}`], ["bound", kernel.bound > 0 ? `${timeText(kernel.bound)} · ${percent(near)} (${kernel.limit})` : null],
        ["runs", kernel.count > 1.01 ? `${+kernel.count.toFixed(1)} times` : null],
        ["speed", kernel.gflops > 0 ? `${rate2(kernel.gflops)} GFLOP/s` : null], ["traffic", kernel.gbs > 0 ? `${rate2(kernel.gbs)} GB/s` : null]]),
    ]);
}

function inspectKernel(kernel) {
  const program = programs[kernel.program], nodes = nodesOf(program.graph), shown = view().program === program;
  put("inspector", 
    h("h2", {}, kernel.name), measured(kernel),
    facts([["arithmetic", kernel.flops ? `${countText(kernel.flops)} FLOP` : null], ["memory", kernel.bytes ? bytesText(kernel.bytes) : null],
      ["intensity", kernel.flops && kernel.bytes ? `${(kernel.flops / kernel.bytes).toPrecision(2)} FLOP per byte` : null],
      ["units", kernel.units ? `${kernel.units}${kernel.parallel ? ", on all threads" : ", on one thread"}` : null], ["scratch", kernel.scratch ? `${bytesText(kernel.scratch)} a worker` : null], ["code", kernel.codeBytes ? bytesText(kernel.codeBytes) : null]]),
    kernel.bodies?.length > 0 && h("div", {}, h("h3", {}, "Runs"), h("ul", {}, kernel.bodies.map((name) => h("li", {}, link(name, () => { showTab("graph"); showView(views.findIndex((v) => v.program?.name === name)); }))))),
    h("h3", {}, `Computes ${kernel.nodes.length} node${kernel.nodes.length === 1 ? "" : "s"}`),
    h("ul", {}, kernel.nodes.map((id) => h("li", {}, link(`${labelOf(nodes[id])} = ${nodes[id].op}`, () => (shown ? jump(id) : showView(views.findIndex((v) => v.program === program)).then(() => jump(id))), nodes[id].loc), h("small", {}, nodes[id].type)))));
}

// Brings a node of the graph that is shown into sight, and selects it.
async function jump(id, inKernel = true) {
  if (state.tab !== "graph") await showTab("graph");
  const n = nodesOf(view().graph)[id];
  if (LEAVES.has(n.op) && !state.leaves) {
    $("leaves").checked = state.leaves = true;
    await showView(state.view);
  }
  await graphView.reveal(id, inKernel);
  selectNode(id);
}

const search = $("search"), hits = $("hits");
function find(text) {
  const words = text.toLowerCase().split(/\s+/).filter(Boolean);
  if (!words.length) return [];
  const matches = (haystack) => words.every((w) => haystack.toLowerCase().includes(w));
  const kernels = data.kernels.map((k, i) => ({ i, k })).filter(({ k }) => k.program === (view().program?.i ?? -1) && matches(k.name))
    .map(({ i, k }) => ({ title: k.name, about: k.us === undefined ? "kernel" : `kernel · ${timeText(k.us)}`, go: () => { selectKernel(i); graphView.reveal(k.nodes[k.nodes.length - 1] ?? 0, false).then(() => graphView.mark(k.nodes)); } }));
  const nodes = nodesOf(view().graph).filter((n) => matches(`${labelOf(n)} ${n.op} ${n.type} ${n.scope ?? ""}`))
    .map((n) => ({ title: `${labelOf(n)} = ${n.op}`, about: [n.type, n.scope].filter(Boolean).join(" · "), go: () => jump(n.id) }));
  const exact = (x) => (x.title.split(" ")[0].replace("%", "") === text.replace("%", "") ? 0 : 1);
  return [...nodes, ...kernels].sort((a, b) => exact(a) - exact(b)).slice(0, 14);
}
let found = [], chosen = 0;
function showHits() {
  hits.replaceChildren(...found.map((f, i) => h("li", { class: i === chosen ? "on" : "", onpointerdown: (e) => { e.preventDefault(); go(i); } }, f.title, h("small", {}, f.about))));
  hits.hidden = !found.length;
}
function go(i) {
  hits.hidden = true;
  search.blur();
  found[i]?.go();
}
search.addEventListener("input", () => { found = find(search.value); chosen = 0; showHits(); });
search.addEventListener("blur", () => { hits.hidden = true; });
search.addEventListener("keydown", (e) => {
  if (e.key === "Enter") go(chosen);
  else if (e.key === "Escape") search.blur();
  else if (e.key === "ArrowDown" || e.key === "ArrowUp") {
    e.preventDefault();
    chosen = (chosen + (e.key === "ArrowDown" ? 1 : found.length - 1)) % Math.max(1, found.length);
    showHits();
  }
});
addEventListener("keydown", (e) => {
  if (e.target.matches("input")) return;
  if (e.key === "/") { e.preventDefault(); search.focus(); search.select(); }
  if (e.key === "Escape") $("drawer").hidden = true;
});
$("leaves").addEventListener("change", (e) => { state.leaves = e.target.checked; showView(state.view); });
for (const button of document.querySelectorAll("[data-zoom]")) button.addEventListener("click", () => {
  ({ in: () => graphView.zoom(1.3), out: () => graphView.zoom(1 / 1.3), fit: () => graphView.fit() })[button.dataset.zoom]();
});

const remembered = { get: () => { try { return localStorage.getItem("graphc-theme"); } catch { return null; } }, set: (v) => { try { localStorage.setItem("graphc-theme", v); } catch { /* a page without storage */ } } };
const dark = () => (document.documentElement.dataset.theme ?? (matchMedia("(prefers-color-scheme: dark)").matches ? "dark" : "light")) === "dark";
if (remembered.get()) document.documentElement.dataset.theme = remembered.get();
$("theme").addEventListener("click", () => { document.documentElement.dataset.theme = dark() ? "light" : "dark"; remembered.set(document.documentElement.dataset.theme); });

$("grip").addEventListener("pointerdown", (e) => {
  $("grip").setPointerCapture(e.pointerId);
  $("grip").onpointermove = (m) => { $("drawer").style.height = `${Math.max(90, Math.min(innerHeight - 160, innerHeight - m.clientY))}px`; };
  $("grip").onpointerup = () => { $("grip").onpointermove = null; };
});
addEventListener("resize", () => (state.tab === "graph" ? undefined : drawCharts()));

function welcome() {
  const top = data.kernels.map((k, i) => ({ ...k, i })).filter((k) => k.us).sort((a, b) => b.us - a.us).slice(0, 8);
  put("inspector", h("h2", {}, `@${data.function}`), h("p", {}, "Choose a node or a kernel to see its code. Groups open with + and close with −; drag to move, scroll to zoom."),
    facts([["module", data.module], ["file", data.file], ["dimensions", data.bindings], ["machine", data.cpu], ["vectors", data.isa], ["threads", `${data.threads}`], ["a run", timeText(data.runUs)], ["arena", bytesText(main.memory.bytes)], ["kernels", `${data.kernels.length}`]]),
    h("h3", {}, "Longest"), h("ul", {}, top.map((k) => h("li", {}, link(k.name, () => selectKernel(k.i)), h("small", {}, `${timeText(k.us)} · ${percent(k.share)}`)))));
}
welcome();
await showTab("graph");
document.documentElement.dataset.ready = "true";
