// The four forms of a kernel side by side. Lines belong to the loop they are in, whose variable all forms
// name: the lines of one loop are marked, and brought into sight, together.
const FORMS = [["ir", "Kernel IR"], ["vector", "Vector IR"], ["clif", "CLIF"], ["asm", "Machine code"]];
const LINES_AT_ONCE = 4000;

function linesOf(form, text) {
  const lines = text.replace(/\n+$/, "").split("\n");
  if (form === "vector") {
    const stack = [];
    return lines.map((line) => {
      const depth = line.length - line.trimStart().length;
      while (stack.length && line.trim() && depth <= stack[stack.length - 1].depth && !/^\s*}/.test(line)) stack.pop();
      const opens = line.match(/^\s*for i(\d+) in /);
      if (opens) stack.push({ depth, loop: opens[1] });
      const loop = stack.length ? stack[stack.length - 1].loop : null;
      if (/^\s*}/.test(line)) while (stack.length && depth <= stack[stack.length - 1].depth) stack.pop();
      return { line, loop };
    });
  }
  if (form === "asm") {
    let loop = null;
    return lines.map((line) => {
      const note = line.match(/^\s*; (?:loop|once|last .*?)\s*(?:of )?i(\d+)/);
      if (note) loop = note[1];
      return { line, loop };
    });
  }
  return lines.map((line) => ({ line, loop: null }));
}

const WORDS = /(;.*$)|(%[\w.]+|\bv\d+\b|\b[bi]\d+\b)|(\b(?:for|in|step|lanes|load|store|kernel|loop|block\d+|function|part|lhs|rhs|out|computes|if|carry|next)\b)|(-?\b(?:0x[\da-f]+|[\da-f]+h|\d+(?:\.\d+)?(?:e-?\d+)?)\b)/g;
const KINDS = ["comment", "value", "word", "number"];
function tinted(line) {
  // The offset of an instruction comes first.
  const offset = line.match(/^ +[\da-f]+ {2}/)?.[0] ?? "";
  const parts = offset ? [h("span", { class: "offset" }, offset)] : [];
  line = line.slice(offset.length);
  let from = 0;
  for (const m of line.matchAll(WORDS)) {
    if (m.index > from) parts.push(line.slice(from, m.index));
    parts.push(h("span", { class: KINDS[[1, 2, 3, 4].findIndex((i) => m[i] !== undefined)] }, m[0]));
    from = m.index + m[0].length;
  }
  parts.push(line.slice(from) || (parts.length ? "" : " "));
  return parts;
}

function showCode(kernel) {
  const panes = FORMS.map(([form, title]) => {
    const text = kernel[form] ?? "";
    if (!text) return h("div", { class: "pane empty", data: { form } }, h("h4", {}, title), h("p", {}, reason(form, kernel)));
    const lines = linesOf(form, text);
    const rows = lines.slice(0, LINES_AT_ONCE).map(({ line, loop }) => h("div", { class: "line", data: loop === null ? {} : { loop } }, tinted(line)));
    if (lines.length > LINES_AT_ONCE) rows.push(h("div", { class: "line comment" }, `; ${lines.length - LINES_AT_ONCE} more lines`));
    const about = form === "asm" ? bytesText(kernel.codeBytes) : `${lines.length} lines`;
    return h("div", { class: "pane", data: { form } }, h("h4", {}, title, h("small", {}, about)), h("pre", {}, rows));
  });
  const code = $("code");
  code.replaceChildren(...panes);
  const aligned = (loop) => {
    for (const line of code.querySelectorAll(".line.same")) line.classList.remove("same");
    if (loop !== undefined) for (const line of code.querySelectorAll(`[data-loop="${loop}"]`)) line.classList.add("same");
  };
  code.onpointerover = (e) => aligned(e.target.closest(".line")?.dataset.loop);
  code.onpointerleave = () => aligned(undefined);
  code.onclick = (e) => {
    const line = e.target.closest(".line"), loop = line?.dataset.loop;
    if (loop === undefined) return;
    for (const pre of code.querySelectorAll("pre")) {
      const target = pre.querySelector(`[data-loop="${loop}"]`);
      if (target && !pre.contains(line)) pre.scrollTo({ top: target.offsetTop - pre.offsetTop - 12, behavior: "smooth" });
    }
  };
  $("drawer").hidden = false;
}

function reason(form, kernel) {
  if (form === "clif") return "Not Cranelift's: the wide x86 emitter makes this code from vector IR.";
  if (form === "vector") return kernel.bodies?.length ? `It runs ${kernel.bodies.join(", ")}: only pointers move between steps.` : "It has no vector IR.";
  return "There is none.";
}
