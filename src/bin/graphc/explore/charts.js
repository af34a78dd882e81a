// Memory over time, time by kernel, and the roofline.
const AXIS = { left: 74, right: 18, top: 18, bottom: 30 };

function ticks(most, about, base = 10) {
  const raw = most / about, power = base ** Math.floor(Math.log(raw) / Math.log(base));
  const step = (base === 2 ? [1, 2] : [1, 2, 5, 10]).find((m) => m * power >= raw) * power;
  return Array.from({ length: Math.floor(most / step) + 1 }, (_, i) => i * step);
}

function memoryChart(data, program, actions) {
  const { memory, steps } = program;
  const [first, end] = steps, n = Math.max(1, end - first);
  const width = Math.max(640, $("stage").clientWidth - 48), height = Math.max(320, $("stage").clientHeight - 330), live = 120;
  const x = (step) => AXIS.left + ((step - first) / n) * (width - AXIS.left - AXIS.right);
  const y = (bytes) => AXIS.top + (1 - bytes / Math.max(1, memory.bytes)) * (height - AXIS.top - AXIS.bottom);
  const phase = (step) => {
    const k = data.kernels[step], nodes = nodesOf(program.graph);
    return k && k.nodes.length ? nodes[k.nodes[k.nodes.length - 1]].phase : 0;
  };
  const map = s("svg", { class: "chart", width, height, role: "img", "aria-label": "Map of the arena over time" });
  for (const t of ticks(memory.bytes, 6, 2)) {
    map.append(s("line", { class: "grid", x1: AXIS.left, x2: width - AXIS.right, y1: y(t), y2: y(t) }),
      s("text", { class: "tick", x: AXIS.left - 8, y: y(t) + 4, "text-anchor": "end" }, bytesText(t)));
  }
  for (const t of ticks(n, Math.min(12, n))) {
    if (!Number.isInteger(t)) continue;
    map.append(s("text", { class: "tick", x: x(first + t), y: height - 10, "text-anchor": "middle" }, `${t}`));
  }
  for (const b of memory.buffers) {
    const at = { x: x(b.first), y: y(b.at + b.bytes), w: Math.max(1, x(b.last + 1) - x(b.first) - 0.5), h: Math.max(1, y(b.at) - y(b.at + b.bytes) - 0.5) };
    const kernel = data.kernels[b.first];
    map.append(s("g", { class: `buffer p${phase(b.first)}${b.inPlace ? " in-place" : ""}`,
      onpointermove: (e) => tip(e, h("b", {}, b.label), h("div", {}, `${bytesText(b.bytes)} at ${bytesText(b.at)}${b.inPlace ? ", in the place of an operand" : ""}`),
        h("div", {}, `written by ${kernel?.name ?? "?"}, last read by ${data.kernels[b.last]?.name ?? "?"}`)),
      onpointerleave: () => tip(null), onclick: () => kernel && actions.kernel(b.first) },
      s("rect", { x: at.x, y: at.y, width: at.w, height: at.h, rx: Math.min(2, at.h / 3) }),
      at.w > 70 && at.h > 13 && s("text", { x: at.x + 5, y: at.y + Math.min(at.h / 2 + 4, 14) }, clip(b.label, (at.w - 10) / 6.2))));
  }
  map.append(s("line", { class: "bound", x1: AXIS.left, x2: width - AXIS.right, y1: y(memory.lower), y2: y(memory.lower) }),
    s("line", { class: "peak", x1: x(memory.peak + 0.5), x2: x(memory.peak + 0.5), y1: AXIS.top, y2: height - AXIS.bottom }));
  const alive = Array.from({ length: n }, (_, i) => memory.buffers
    .reduce((sum, b) => sum + (!b.inPlace && b.first <= first + i && first + i <= b.last ? b.bytes : 0), 0));
  const most = Math.max(1, ...alive);
  const level = (bytes) => live - 20 - (bytes / most) * (live - 40);
  const area = `M${x(first)} ${level(0)} ${alive.map((b, i) => `L${x(first + i)} ${level(b)} L${x(first + i + 1)} ${level(b)}`).join(" ")} L${x(end)} ${level(0)} Z`;
  const curve = s("svg", { class: "chart", width, height: live, role: "img", "aria-label": "Bytes alive at each step" },
    s("path", { class: "alive", d: area }),
    s("text", { class: "tick", x: AXIS.left - 8, y: level(most) + 4, "text-anchor": "end" }, bytesText(most)),
    s("text", { class: "tick", x: AXIS.left - 8, y: level(0) + 4, "text-anchor": "end" }, "0"),
    s("line", { class: "peak", x1: x(memory.peak + 0.5), x2: x(memory.peak + 0.5), y1: 10, y2: level(0) }));
  return h("div", { class: "panel" },
    h("h2", {}, "Arena over time"),
    h("p", {}, `${memory.buffers.length} buffers share ${bytesText(memory.bytes)}. The dashed line is the lower bound, ${bytesText(memory.lower)}: what is alive at the fullest step, `,
      h("a", { href: "#", onclick: (e) => { e.preventDefault(); actions.kernel(memory.peak); } }, data.kernels[memory.peak]?.name ?? ""), "."),
    legend([["p0", "forward"], ["p1", "backward"], ["in-place", "in the place of an operand"]]), map,
    h("h3", {}, "Bytes alive"), curve);
}

const legend = (items) => h("div", { class: "legend" }, items.map(([kind, text]) => h("span", {}, h("i", { class: kind }), text)));

function timeCharts(data, actions, selected) {
  const rows = data.kernels.map((k, i) => ({ ...k, i })).filter((k) => k.us !== undefined).sort((a, b) => b.us - a.us);
  const longest = rows[0]?.us ?? 1;
  const cell = (text, kind) => h("td", { class: kind }, text);
  const rate = (x) => (x > 0 ? (x >= 100 ? x.toFixed(0) : x.toFixed(1)) : "");
  const phase = (k) => { const nodes = nodesOf(data.programs[k.program].graph); return k.nodes.length ? nodes[k.nodes[k.nodes.length - 1]].phase : 0; };
  const table = h("table", {}, h("thead", {}, h("tr", {}, ["kernel", "", "time", "part", "times", "GFLOP/s", "GB/s", "bound", "of bound"].map((t, i) => h("th", { class: i > 1 ? "n" : "" }, t)))),
    h("tbody", {}, rows.map((k) => h("tr", { class: k.i === selected ? "selected" : "", tabindex: 0, onclick: () => actions.kernel(k.i), onkeydown: (e) => e.key === "Enter" && actions.kernel(k.i) },
      cell(k.name, "mono"),
      h("td", { class: "bars" }, h("div", { class: `bar p${phase(k)}`, style: `width:${Math.max(0.5, (100 * k.us) / longest)}%` }, h("div", { class: "floor", style: `width:${Math.min(100, (100 * k.bound) / k.us)}%` }))),
      cell(timeText(k.us), "n"), cell(percent(k.share), "n"), cell(`${+k.count.toFixed(1)}`, "n"), cell(rate(k.gflops), "n"), cell(rate(k.gbs), "n"),
      cell(k.bound > 0 ? timeText(k.bound) : "", "n"), cell(k.bound > 0 ? percent(k.bound / k.us) : "", "n")))));
  return h("div", { class: "panel" },
    h("h2", {}, "Time by kernel"),
    h("p", {}, `${data.runs} runs of ${timeText(data.runUs)} on ${data.threads} thread${data.threads === 1 ? "" : "s"}; the kernels account for ${percent(data.accounted)}. The dark part of a bar is the bound: the least time for its arithmetic, or for its bytes at the speed of the cache that holds them.`),
    roofline(data, rows, actions, phase), table);
}

function roofline(data, rows, actions, phase) {
  const points = rows.filter((k) => k.flops > 0 && k.bytes > 0 && k.gflops > 0);
  const width = Math.max(560, $("stage").clientWidth - 48), height = 320;
  const { roof } = data, levels = roof.levels.filter((l) => l.gbs > 0);
  if (!points.length || !levels.length) return null;
  const xs = points.map((k) => k.flops / k.bytes), ys = points.map((k) => k.gflops);
  const slowest = Math.min(...levels.map((l) => l.gbs));
  const [x0, x1] = [Math.min(...xs, 0.05) / 1.5, Math.max(...xs, (roof.gflops / slowest) * 3)];
  const [y0, y1] = [Math.max(1e-3, Math.min(...ys) / 2), roof.gflops * 2];
  const along = (v, lo, hi) => Math.log(v / lo) / Math.log(hi / lo);
  const x = (v) => AXIS.left + along(v, x0, x1) * (width - AXIS.left - AXIS.right);
  const y = (v) => height - AXIS.bottom - along(v, y0, y1) * (height - AXIS.top - AXIS.bottom);
  const tens = (lo, hi) => { const t = []; for (let p = Math.ceil(Math.log10(lo)); 10 ** p <= hi; p++) t.push(10 ** p); return t; };
  const chart = s("svg", { class: "chart", width, height, role: "img", "aria-label": "Roofline" },
    s("defs", {}, s("clipPath", { id: "plot" }, s("rect", { x: AXIS.left, y: AXIS.top, width: width - AXIS.left - AXIS.right, height: height - AXIS.top - AXIS.bottom }))),
    tens(x0, x1).map((t) => [s("line", { class: "grid", x1: x(t), x2: x(t), y1: AXIS.top, y2: height - AXIS.bottom }), s("text", { class: "tick", x: x(t), y: height - 12, "text-anchor": "middle" }, `${+t.toPrecision(2)}`)]),
    tens(y0, y1).map((t) => [s("line", { class: "grid", x1: AXIS.left, x2: width - AXIS.right, y1: y(t), y2: y(t) }), s("text", { class: "tick", x: AXIS.left - 8, y: y(t) + 4, "text-anchor": "end" }, `${+t.toPrecision(2)}`)]),
    s("text", { class: "tick", x: width - AXIS.right, y: height - 12, "text-anchor": "end" }, "FLOP per byte"),
    s("text", { class: "tick", x: AXIS.left + 8, y: AXIS.top + 4 }, "GFLOP/s"));
  const plot = s("g", { "clip-path": "url(#plot)" });
  plot.append(s("line", { class: "roof", x1: x(x0), x2: x(x1), y1: y(roof.gflops), y2: y(roof.gflops) }),
    s("text", { class: "roof-name", x: width - AXIS.right - 6, y: y(roof.gflops) - 6, "text-anchor": "end" }, `${roof.gflops.toFixed(0)} GFLOP/s`));
  levels.forEach((l, i) => {
    const knee = roof.gflops / l.gbs, label = Math.max(x0 * 1.15 ** (1 + i), y0 / l.gbs * 1.1);
    plot.append(s("line", { class: "roof", x1: x(x0), y1: y(x0 * l.gbs), x2: x(knee), y2: y(roof.gflops) }),
      s("text", { class: "roof-name", x: x(label) + 4, y: y(label * l.gbs) - 5 }, `${l.level} ${l.gbs.toFixed(0)} GB/s`));
  });
  for (const k of points) {
    plot.append(s("circle", { class: `point p${phase(k)}`, cx: x(k.flops / k.bytes), cy: y(k.gflops), r: 3 + 9 * Math.sqrt(k.share),
      onclick: () => actions.kernel(k.i), onpointerleave: () => tip(null),
      onpointermove: (e) => tip(e, h("b", {}, k.name), h("div", {}, `${timeText(k.us)}, ${percent(k.share)} of a run`), h("div", {}, `${rate2(k.gflops)} GFLOP/s, ${rate2(k.gbs)} GB/s`), h("div", {}, `${percent(k.bound / k.us)} of what the ${k.limit} allows`)) }));
  }
  chart.append(plot);
  return chart;
}
const rate2 = (x) => (x >= 100 ? x.toFixed(0) : x.toPrecision(2));
