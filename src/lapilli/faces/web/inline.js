// Markdown inside a line: code, emphasis, links. Builds nodes; what it does not know stays text.

import { make } from "./dom.js";

// One alternative a construct, tried from left to right; bounded, so that no text is slow to read.
const MARKS = new RegExp([
  /(?<code>`+)(?<inCode>[^`](?:.{0,2000}?[^`])?)\k<code>(?!`)/,
  /\\(?<escaped>[!-\/:-@[-`{-~])/,
  /!?\[(?<label>(?:\\.|[^\]\\]){0,400})\]\((?<target>[^\s()<>]{1,2000})(?:\s+"[^"]{0,200}")?\)/,
  /<(?<angled>(?:https?:\/\/|mailto:)[^\s<>]{1,2000})>/,
  /(?<bare>https?:\/\/[^\s<>"'`\])]{1,2000}[^\s<>"'`\]).,;:!?])/,
  /(?<strong>\*\*|__)(?=\S)(?<inStrong>.{0,1000}?\S)\k<strong>(?![*_])/,
  /~~(?=\S)(?<struck>.{0,1000}?\S)~~/,
  /\*(?=[^\s*])(?<starred>[^*]{0,1000}?[^\s*])\*(?!\*)/,
  /(?<![\p{L}\p{N}_])_(?=[^\s_])(?<lined>[^_]{0,1000}?[^\s_])_(?![\p{L}\p{N}_])/,
  /(?<line>\n)/,
].map((mark) => mark.source).join("|"), "gsu");

const DEEPEST = 6;

/** The nodes of a piece of Markdown that has no blocks in it. */
export function inline(text, depth = 0) {
  if (depth > DEEPEST) return [text];
  const nodes = [];
  let end = 0;
  for (const match of text.matchAll(MARKS)) {
    if (match.index > end) nodes.push(text.slice(end, match.index));
    nodes.push(node(match, depth + 1));
    end = match.index + match[0].length;
  }
  if (end < text.length) nodes.push(text.slice(end));
  return nodes;
}

function node(match, depth) {
  const part = match.groups;
  if (part.code) return make("code", {}, part.inCode.replace(/^ (.*\S.*) $/s, "$1"));
  if (part.escaped) return part.escaped;
  if (part.target !== undefined) return link(part.target, inline(part.label, depth), match[0]);
  if (part.angled) return link(part.angled, [part.angled], match[0]);
  if (part.bare) return link(part.bare, [part.bare], match[0]);
  if (part.strong) return make("strong", {}, inline(part.inStrong, depth));
  if (part.struck) return make("del", {}, inline(part.struck, depth));
  if (part.starred) return make("em", {}, inline(part.starred, depth));
  if (part.lined) return make("em", {}, inline(part.lined, depth));
  return make("br");
}

/** A link out, or its source as text: other schemes may run code, and a picture in an answer would be fetched. */
function link(target, label, source) {
  if (!/^(https?:\/\/|mailto:)/i.test(target)) return source;
  return make("a", { href: target, target: "_blank", rel: "noopener noreferrer nofollow" }, label.length ? label : target);
}
