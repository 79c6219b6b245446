// Markdown to nodes, block by block, so that a growing answer redraws only its last block.
// A subset of CommonMark and GitHub's tables: https://spec.commonmark.org/0.31.2/

import { codeBlock } from "./code.js";
import { make } from "./dom.js";
import { inline } from "./inline.js";

const FENCE = /^ {0,3}(`{3,}|~{3,})\s*([\w+#.-]*)[^`]*$/;
const HEADING = /^ {0,3}(#{1,6})\s+(.*?)\s*#*$/;
const RULE = /^ {0,3}([-*_])(?:\s*\1){2,}\s*$/;
const QUOTE = /^ {0,3}> ?/;
const ITEM = /^( {0,3})([-*+]|\d{1,9}[.)])( +|$)(.*)$/;
const ROW = /^ {0,3}\|?.*\|.*$/;
const DASHES = /^ {0,3}\|?\s*:?-+:?\s*(\|\s*:?-+:?\s*)*\|?\s*$/;
const DEEPEST = 8;

const drawn = new WeakMap();

/** Shows `text` in `container`; called again with a longer text, it touches only what changed. */
export function show(container, text) {
  const before = drawn.get(container) ?? [];
  const now = blocks(text);
  now.forEach((block, place) => {
    const source = block.lines.join("\n");
    if (before[place]?.source === source && before[place].kind === block.kind) {
      now[place] = before[place];
      return;
    }
    const node = render(block, 0);
    if (before[place]) before[place].node.replaceWith(node);
    else container.append(node);
    now[place] = { kind: block.kind, source, node };
  });
  for (const extra of before.slice(now.length)) extra.node.remove();
  drawn.set(container, now);
}

/** Cuts a text into blocks: {kind, lines, …}. */
export function blocks(text) {
  const lines = text.replace(/\r\n?/g, "\n").replace(/\t/g, "    ").split("\n");
  const found = [];
  for (let at = 0; at < lines.length;) {
    if (!lines[at].trim()) {
      at += 1;
      continue;
    }
    const block = next(lines, at);
    found.push(block);
    at += block.lines.length;
  }
  return found;
}

function next(lines, at) {
  const line = lines[at];
  const until = (stop) => {
    let end = at + 1;
    while (end < lines.length && !stop(lines[end], end)) end += 1;
    return lines.slice(at, end);
  };
  const fence = line.match(FENCE);
  if (fence) {
    const close = new RegExp(`^ {0,3}${fence[1][0]}{${fence[1].length},}\\s*$`);
    const body = until((each, end) => end > at + 1 && close.test(lines[end - 1]));
    return { kind: "code", lines: body, language: fence[2], closed: body.length > 1 && close.test(body.at(-1)) };
  }
  if (HEADING.test(line)) return { kind: "heading", lines: [line] };
  if (RULE.test(line)) return { kind: "rule", lines: [line] };
  if (QUOTE.test(line)) return { kind: "quote", lines: until((each) => !QUOTE.test(each)) };
  if (ROW.test(line) && DASHES.test(lines[at + 1] ?? "") && lines[at + 1].includes("-")) {
    return { kind: "table", lines: until((each, end) => end > at + 1 && !ROW.test(each)) };
  }
  const item = line.match(ITEM);
  if (item) return { kind: "list", lines: until((each, end) => endsList(each, lines[end - 1], item)) };
  return { kind: "paragraph", lines: until((each, end) => !each.trim() || interrupts(each) || (ROW.test(each) && DASHES.test(lines[end + 1] ?? "") && lines[end + 1].includes("|"))) };
}

function interrupts(line) {
  const item = line.match(ITEM);
  return FENCE.test(line) || HEADING.test(line) || RULE.test(line) || QUOTE.test(line) || (item !== null && item[4] !== "");
}

function endsList(line, before, first) {
  if (!line.trim()) return false;
  const item = line.match(ITEM);
  if (item && !RULE.test(line)) return ordered(item) !== ordered(first) && item[1].length <= first[1].length;
  if (/^ {2,}/.test(line)) return false;
  return !before.trim() || interrupts(line);
}

function ordered(item) {
  return /\d/.test(item[2]);
}

function render(block, depth) {
  if (block.kind === "code") {
    return codeBlock(block.lines.slice(1, block.closed ? -1 : undefined).join("\n"), block.language);
  }
  if (block.kind === "heading") {
    const [, marks, words] = block.lines[0].match(HEADING);
    return make(`h${Math.min(marks.length + 2, 6)}`, {}, inline(words));
  }
  if (block.kind === "rule") return make("hr");
  if (block.kind === "quote") return make("blockquote", {}, inside(block.lines.map((line) => line.replace(QUOTE, "")), depth));
  if (block.kind === "table") return table(block.lines);
  if (block.kind === "list") return list(block.lines, depth);
  return make("p", {}, inline(block.lines.map((line) => line.trim()).join("\n")));
}

function inside(lines, depth) {
  if (depth >= DEEPEST) return [lines.join("\n")];
  return blocks(lines.join("\n")).map((block) => render(block, depth + 1));
}

function list(lines, depth) {
  const first = lines[0].match(ITEM);
  const items = [];
  for (const line of lines) {
    const item = line.match(ITEM);
    if (item && (items.length === 0 || item[1].length <= first[1].length)) {
      items.push({ width: item[1].length + item[2].length + Math.min(item[3].length || 1, 4), lines: [item[4]] });
    } else {
      const { width, lines: body } = items.at(-1);
      body.push(line.replace(new RegExp(`^ {0,${width}}`), ""));
    }
  }
  const loose = items.some((item) => item.lines.join("\n").trim().includes("\n\n"));
  const start = ordered(first) ? Number.parseInt(first[2], 10) : 1;
  return make(ordered(first) ? "ol" : "ul", start === 1 ? {} : { start: String(start) }, items.map((item) => listItem(item.lines, loose, depth)));
}

function listItem(lines, loose, depth) {
  const task = lines[0].match(/^\[([ xX])\]\s+(.*)$/);
  const body = inside(task ? [task[2], ...lines.slice(1)] : lines, depth);
  // Only a loose list has paragraphs in it.
  const shown = loose ? body : body.flatMap((node) => (node.tagName === "P" ? [...node.childNodes] : [node]));
  if (!task) return make("li", {}, shown);
  const box = make("input", { type: "checkbox", disabled: true, checked: task[1] !== " ", "aria-label": task[1] === " " ? "to do" : "done" });
  return make("li", { class: "task" }, box, make("span", {}, shown));
}

function cells(line) {
  return line.trim().replace(/^\||\|$/g, "").split(/(?<!\\)\|/).map((cell) => cell.trim().replaceAll("\\|", "|"));
}

function table([head, dashes, ...rows]) {
  const sides = cells(dashes).map((cell) => (cell.endsWith(":") ? (cell.startsWith(":") ? "center" : "right") : ""));
  const row = (tag, line) => make("tr", {}, cells(line).slice(0, sides.length).map((cell, place) => make(tag, { class: sides[place] || null }, inline(cell))));
  return make("div", { class: "table", tabindex: "0", role: "region", "aria-label": "Table" },
    make("table", {}, make("thead", {}, row("th", head)), make("tbody", {}, rows.map((line) => row("td", line)))));
}
