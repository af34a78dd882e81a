// The graph: groups by phase, scope and kernel that open and close; boxes are laid out by a worker.
const worker = new Worker(URL.createObjectURL(new Blob([$("layout").textContent], { type: "text/javascript" })));
let layouts = 0;
function layOut(request) {
  const id = ++layouts;
  return new Promise((resolve) => {
    const listen = ({ data }) => {
      if (data.id !== id) return;
      worker.removeEventListener("message", listen);
      resolve(data);
    };
    worker.addEventListener("message", listen);
    worker.postMessage({ id, ...request });
  });
}

// Members of one group; more are divided.
const MOST_MEMBERS = 60;
// Boxes that are open at first.
const FIRST_BOXES = 40;

// The tree of groups of a graph. A group has an id, a label, and children: groups, or numbers of nodes.
function treeOf(graph, kernels, leaves) {
  const nodes = nodesOf(graph);
  const phases = new Set(nodes.map((n) => n.phase));
  const root = { id: "", label: "", children: [], groups: new Map(), phase: 0 };
  const child = (parent, key, extra) => {
    let group = parent.groups.get(key);
    if (!group) {
      group = { id: `${parent.id}/${key}`, label: key, children: [], groups: new Map(), parent, ...extra };
      parent.groups.set(key, group);
      parent.children.push(group);
    }
    return group;
  };
  for (const n of nodes) {
    if (!leaves && LEAVES.has(n.op)) continue;
    const k = n.kernel === null ? null : kernels[n.kernel];
    // A kernel is where its last node is.
    const at = k && k.nodes.length ? nodes[k.nodes[k.nodes.length - 1]] : n;
    let group = root;
    if (phases.size > 1) group = child(group, PHASES[at.phase], { phase: at.phase });
    for (const part of (at.scope ?? "").split("/").filter(Boolean)) group = child(group, part, { phase: at.phase });
    if (k) group = child(group, k.name, { phase: at.phase, kernel: n.kernel });
    group.children.push(n.id);
  }
  divide(root);
  const count = (group) => (group.size = group.children.reduce((sum, c) => sum + (typeof c === "number" ? 1 : count(c)), 0));
  count(root);
  return root;
}

function divide(group) {
  for (const c of group.children) if (typeof c !== "number") divide(c);
  const n = group.children.length;
  if (n <= MOST_MEMBERS) return;
  const size = Math.max(Math.ceil(Math.sqrt(n)), Math.ceil(n / MOST_MEMBERS));
  const parts = [];
  for (let i = 0; i < n; i += size) {
    const children = group.children.slice(i, i + size);
    const part = { id: `${group.id}/#${i}`, label: `${i} … ${i + children.length - 1}`, children, parent: group, phase: group.phase, part: true };
    const kernel = children.find((c) => typeof c !== "number");
    part.phase = kernel ? kernel.phase : part.phase;
    for (const c of children) if (typeof c !== "number") c.parent = part;
    parts.push(part);
  }
  group.children = parts;
}

// Opens groups from the outside in, while there is room.
function openFirst(root) {
  const open = new Set();
  let boxes = root.children.length;
  const queue = root.children.filter((c) => typeof c !== "number");
  while (queue.length) {
    const group = queue.shift();
    if (group.kernel !== undefined || boxes + group.children.length > FIRST_BOXES) continue;
    open.add(group.id);
    boxes += group.children.length - 1;
    queue.push(...group.children.filter((c) => typeof c !== "number"));
  }
  return open;
}

// The boxes that are seen, and the edges between them.
function visible(graph, root, open) {
  const nodes = nodesOf(graph);
  const boxes = [], groups = [], box = new Map();
  const all = (group, id) => group.children.forEach((c) => (typeof c === "number" ? box.set(c, id) : all(c, id)));
  const walk = (group, parent) => {
    for (const c of group.children) {
      if (typeof c === "number") {
        const n = nodes[c], id = `n${c}`;
        box.set(c, id);
        const width = Math.max(labelOf(n).length + n.op.length + 3, n.type.length) * 6.7 + 22;
        boxes.push({ id, parent, node: n, w: Math.max(86, Math.min(width, 300)), h: 38 });
      } else if (open.has(c.id)) {
        groups.push({ id: c.id, parent, group: c });
        walk(c, c.id);
      } else {
        all(c, c.id);
        const width = c.label.length * 7.2 + 46;
        boxes.push({ id: c.id, parent, group: c, w: Math.max(128, Math.min(width, 300)), h: c.kernel === undefined ? 44 : 50 });
      }
    }
  };
  walk(root, undefined);
  const seen = new Map();
  for (const n of nodes) {
    const to = box.get(n.id);
    if (to === undefined) continue;
    for (const o of n.operands) {
      const from = box.get(o);
      if (from === undefined || from === to) continue;
      const key = `${from}>${to}`;
      seen.set(key, { from, to, count: (seen.get(key)?.count ?? 0) + 1 });
    }
  }
  return { boxes, groups, edges: [...seen.values()], box };
}

// Draws groups tight around what is in them, with room for their names; outer ones after inner ones.
function wrap(seen, places) {
  const inside = new Map();
  for (const item of [...seen.boxes, ...seen.groups]) {
    if (item.parent !== undefined) inside.set(item.parent, [...(inside.get(item.parent) ?? []), item.id]);
  }
  for (const { id } of [...seen.groups].reverse()) {
    const all = (inside.get(id) ?? []).map((child) => places.get(child));
    if (!all.length) continue;
    const [left, top] = [Math.min(...all.map((p) => p.x)) - 10, Math.min(...all.map((p) => p.y)) - 24];
    const [right, bottom] = [Math.max(...all.map((p) => p.x + p.w)) + 10, Math.max(...all.map((p) => p.y + p.h)) + 10];
    Object.assign(places.get(id), { x: left, y: top, w: right - left, h: bottom - top });
  }
}

class GraphView {
  constructor(host, actions) {
    this.host = host;
    this.actions = actions;
    this.trees = new Map();
    this.at = { x: 0, y: 0, k: 1 };
    this.scene = s("g");
    this.svg = s("svg", { role: "img", "aria-label": "Graph" },
      s("defs", {}, s("marker", { id: "arrow", viewBox: "0 0 8 8", refX: 7, refY: 4, markerWidth: 6, markerHeight: 6, orient: "auto" },
        s("path", { d: "M0 0.8 L7.2 4 L0 7.2 z", class: "head" }))), this.scene);
    host.append(this.svg);
    this.svg.addEventListener("wheel", (e) => {
      e.preventDefault();
      this.zoom(Math.exp(-e.deltaY * (e.ctrlKey ? 0.01 : 0.0016)), e.offsetX, e.offsetY);
    }, { passive: false });
    let from = null;
    this.svg.addEventListener("pointerdown", (e) => { from = { x: e.clientX - this.at.x, y: e.clientY - this.at.y, moved: false, id: e.pointerId }; });
    this.svg.addEventListener("pointermove", (e) => {
      if (!from) return;
      const [x, y] = [e.clientX - from.x, e.clientY - from.y];
      if (!from.moved && Math.hypot(x - this.at.x, y - this.at.y) < 4) return;
      // Captured only now, so that a click still reaches the box.
      if (!from.moved) this.svg.setPointerCapture(from.id);
      from.moved = true;
      Object.assign(this.at, { x, y });
      this.move();
    });
    for (const end of ["pointerup", "pointercancel"]) this.svg.addEventListener(end, () => { from = null; });
  }

  // Shows a graph, whose groups keep what was open before.
  async show(view, kernels, leaves) {
    this.view = view;
    const key = `${view.key} ${leaves}`;
    if (!this.trees.has(key)) {
      const root = treeOf(view.graph, kernels, leaves);
      this.trees.set(key, { root, open: openFirst(root) });
    }
    Object.assign(this, this.trees.get(key), { kernels });
    await this.draw();
    this.fit();
  }

  async draw() {
    $("busy").hidden = false;
    const seen = visible(this.view.graph, this.root, this.open);
    const plain = (b) => ({ id: b.id, parent: b.parent, w: b.w, h: b.h });
    const mine = (this.drawing = {});
    const laid = await layOut({ boxes: seen.boxes.map(plain), groups: seen.groups.map(plain), edges: seen.edges.map((e) => [e.from, e.to]) });
    if (mine !== this.drawing) return;
    $("busy").hidden = true;
    this.size = { w: laid.width, h: laid.height };
    this.box = seen.box;
    this.places = new Map([...laid.boxes, ...laid.groups].map((b) => [b.id, b]));
    wrap(seen, this.places);
    this.elements = new Map();
    const longest = Math.max(...this.kernels.map((k) => k.us ?? 0), 1e-9);
    this.scene.replaceChildren(
      ...seen.groups.map((g) => this.cluster(g, this.places.get(g.id))),
      s("g", { class: "edges" }, laid.edges.map((e) => s("path", { d: curve(e.points), "marker-end": "url(#arrow)", data: { from: e.from, to: e.to } }))),
      ...seen.boxes.map((b) => (b.node ? this.node(b, this.places.get(b.id)) : this.group(b, this.places.get(b.id), longest))),
    );
    this.mark();
  }

  cluster({ group }, at) {
    const close = (e) => { e.stopPropagation(); this.toggle(group); };
    return s("g", { class: `cluster p${group.phase}${group.kernel === undefined ? "" : " kernel"}`, transform: `translate(${at.x} ${at.y})` },
      s("rect", { width: at.w, height: at.h, rx: 9 }),
      s("g", { class: "handle", onclick: close, tabindex: 0 },
        s("rect", { x: 5, y: 4, width: Math.min(at.w - 10, group.label.length * 6.6 + 26), height: 17, rx: 4 }),
        s("text", { x: 11, y: 16 }, `− ${clip(group.label, at.w / 6.6 - 3)}`)));
  }

  group(b, at, longest) {
    const { group } = b, kernel = group.kernel === undefined ? null : this.kernels[group.kernel];
    const part = kernel ? (kernel.us ?? 0) / longest : 0;
    const about = kernel ? (kernel.us === undefined ? "not run" : `${timeText(kernel.us)} · ${percent(kernel.share)}`) : `${group.size} nodes`;
    const select = () => (kernel ? this.actions.kernel(group.kernel) : this.toggle(group));
    const element = s("g", { class: `box ${kernel ? "kernel" : "scope"} p${group.phase ?? 0}`, transform: `translate(${at.x} ${at.y})`, tabindex: 0, data: { box: b.id },
      onclick: select, ondblclick: () => this.toggle(group), onkeydown: (e) => e.key === "Enter" && select() },
      s("rect", { width: at.w, height: at.h, rx: 7 }),
      kernel && s("rect", { class: "heat", x: 9, y: at.h - 8, width: Math.max(1, part * (at.w - 18)), height: 3, rx: 1.5 }),
      s("text", { x: 11, y: 19, class: "name" }, clip(group.label, (at.w - 34) / 6.9)),
      s("text", { x: 11, y: 34, class: "about" }, about),
      s("text", { x: at.w - 16, y: 20, class: "plus", onclick: (e) => { e.stopPropagation(); this.toggle(group); } }, "+"));
    if (this.changedIn(group)) element.classList.add("changed");
    this.elements.set(b.id, element);
    return element;
  }

  changedIn(group) {
    const nodes = nodesOf(this.view.graph);
    return group.children.some((c) => (typeof c === "number" ? nodes[c].changed : this.changedIn(c)));
  }

  node(b, at) {
    const n = b.node;
    const select = () => this.actions.node(n.id);
    const element = s("g", { class: `box node p${n.phase}${LEAVES.has(n.op) ? " leaf" : ""}${n.changed ? " changed" : ""}`, tabindex: 0,
      transform: `translate(${at.x} ${at.y})`, onclick: select, onkeydown: (e) => e.key === "Enter" && select(), data: { box: b.id } },
      s("rect", { width: at.w, height: at.h, rx: LEAVES.has(n.op) ? 19 : 5 }),
      s("text", { x: 11, y: 16 }, s("tspan", { class: "name" }, clip(n.op, 26)), s("tspan", { class: "about" }, ` ${clip(labelOf(n), (at.w - 22) / 6.7 - n.op.length - 1)}`)),
      s("text", { x: 11, y: 30, class: "about" }, clip(n.type, (at.w - 22) / 6.4)));
    this.elements.set(b.id, element);
    return element;
  }

  toggle(group) {
    if (!this.open.delete(group.id)) this.open.add(group.id);
    const before = this.places.get(group.id);
    this.draw().then(() => {
      // What was clicked stays where it is.
      const after = this.places.get(group.id);
      if (!before || !after) return;
      this.at.x += (before.x - after.x) * this.at.k;
      this.at.y += (before.y - after.y) * this.at.k;
      this.move();
    });
  }

  // Opens the groups around a node, and brings it into sight.
  async reveal(node, inKernel) {
    const path = (group) => {
      for (const c of group.children) {
        if (c === node) return [group];
        const rest = typeof c === "number" ? null : path(c);
        if (rest) return [group, ...rest];
      }
      return null;
    };
    const groups = path(this.root) ?? [];
    const shut = groups.filter((g) => g.id && !this.open.has(g.id) && (inKernel || g.kernel === undefined));
    shut.forEach((g) => this.open.add(g.id));
    if (shut.length) await this.draw();
    this.center(this.box.get(node));
  }

  center(id) {
    const place = this.places.get(id);
    if (!place) return;
    const { width, height } = this.svg.getBoundingClientRect();
    this.at.k = Math.max(this.at.k, 0.8);
    this.at.x = width / 2 - (place.x + place.w / 2) * this.at.k;
    this.at.y = height / 2 - (place.y + place.h / 2) * this.at.k;
    this.move();
  }

  // Moves so that a box is not outside.
  keepInSight(id) {
    const place = this.places?.get(id);
    if (!place) return;
    const { width, height } = this.svg.getBoundingClientRect(), { x, y, k } = this.at;
    const [left, top] = [x + place.x * k, y + place.y * k];
    if (left < 0 || top < 0 || left + place.w * k > width || top + place.h * k > height - 60) this.center(id);
  }

  // Marks what is selected, and its edges.
  mark(selected = this.selected) {
    this.selected = selected;
    if (!this.elements) return;
    const ids = new Set((selected ?? []).map((n) => this.box.get(n)).filter(Boolean));
    if (ids.size) this.keepInSight([...ids][ids.size - 1]);
    for (const [id, element] of this.elements) element.classList.toggle("selected", ids.has(id));
    for (const edge of this.scene.querySelectorAll(".edges path")) {
      edge.classList.toggle("into", ids.has(edge.dataset.to));
      edge.classList.toggle("from", ids.has(edge.dataset.from));
    }
  }

  fit() {
    const { width, height } = this.svg.getBoundingClientRect();
    if (!this.size || !width) return;
    const k = Math.min(width / this.size.w, height / this.size.h, 1.25);
    // A long graph begins at its top, large enough to be read.
    this.at.k = Math.max(k, Math.min(0.55, width / this.size.w));
    this.at.x = (width - this.size.w * this.at.k) / 2;
    this.at.y = k < this.at.k ? 0 : Math.max(0, (height - this.size.h * this.at.k) / 2);
    this.move();
  }

  zoom(factor, x, y) {
    const box = this.svg.getBoundingClientRect();
    [x, y] = [x ?? box.width / 2, y ?? box.height / 2];
    const k = Math.max(0.03, Math.min(4, this.at.k * factor));
    this.at.x = x - (x - this.at.x) * (k / this.at.k);
    this.at.y = y - (y - this.at.y) * (k / this.at.k);
    this.at.k = k;
    this.move();
  }

  move() {
    this.scene.setAttribute("transform", `translate(${this.at.x} ${this.at.y}) scale(${this.at.k})`);
  }
}

const clip = (text, most) => (text.length > most ? `${text.slice(0, Math.max(1, Math.floor(most) - 1))}…` : text);

function curve(points) {
  let d = `M${points[0].x} ${points[0].y}`;
  for (let i = 1; i < points.length - 1; i++) {
    const [a, b] = [points[i], points[i + 1]];
    const end = i === points.length - 2 ? b : { x: (a.x + b.x) / 2, y: (a.y + b.y) / 2 };
    d += ` Q${a.x} ${a.y} ${end.x} ${end.y}`;
  }
  return points.length === 2 ? `${d} L${points[1].x} ${points[1].y}` : d;
}
