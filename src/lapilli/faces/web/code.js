// Code in an answer: coloured a little, copied with a button.

import { copyButton, make } from "./dom.js";

const WORDS = new Set((
  "and as assert async await break case catch class const continue def default del do done echo elif else enum esac except export " +
  "extends false False fi final finally fn for from func function global go if impl implements import in interface is lambda let " +
  "match mod module mut namespace new nil None nonlocal not null or package pass pub public private protected raise return self " +
  "select static struct super switch then this throw true True try type typeof undefined union use using var void where while " +
  "with yield SELECT FROM WHERE INSERT UPDATE DELETE JOIN GROUP ORDER BY LIMIT CREATE TABLE VALUES INTO AND OR NOT AS ON"
).split(" "));
const HASHED = new Set(["", "py", "python", "sh", "bash", "shell", "zsh", "console", "ruby", "rb", "yaml", "yml", "toml", "r", "perl", "dockerfile", "make", "makefile"]);
const LONGEST = 20_000;

function pieces(language) {
  const comment = HASHED.has(language) ? /#[^\n]*/ : language === "sql" || language === "lua" ? /--[^\n]*/ : /\/\/[^\n]*|\/\*[\s\S]*?(?:\*\/|$)/;
  return new RegExp([
    `(?<comment>${comment.source})`,
    /(?<string>"""[\s\S]*?(?:"""|$)|"(?:\\.|[^"\\\n])*"?|'(?:\\.|[^'\\\n])*'?|`(?:\\.|[^`\\])*`?)/.source,
    /(?<number>\b\d[\d_]*(?:\.\d+)?(?:e[+-]?\d+)?\b|\b0x[\da-f]+\b)/.source,
    /(?<word>[A-Za-z_][A-Za-z_0-9]*)/.source,
  ].join("|"), "gi");
}

/** The spans of a piece of source; plain text where the language has no words to colour. */
function coloured(source, language) {
  if (source.length > LONGEST || ["text", "txt", "plain", "markdown", "md", "html", "xml"].includes(language)) return [source];
  const nodes = [];
  let end = 0;
  const add = (kind, index, text) => {
    if (index > end) nodes.push(source.slice(end, index));
    nodes.push(make("span", { class: kind }, text));
    end = index + text.length;
  };
  for (const match of source.matchAll(pieces(language))) {
    const kind = ["comment", "string", "number"].find((each) => match.groups[each]);
    if (kind) add(kind, match.index, match[0]);
    else if (WORDS.has(match[0])) add("keyword", match.index, match[0]);
    else if (source[match.index + match[0].length] === "(") add("called", match.index, match[0]);
  }
  nodes.push(source.slice(end));
  return nodes;
}

/** A block of code with its language and a copy button. */
export function codeBlock(source, language = "") {
  const name = language.toLowerCase();
  return make("figure", { class: "code" },
    make("figcaption", {}, make("span", {}, name || "text"), copyButton("Copy code", () => source)),
    make("pre", { tabindex: "0", role: "region", "aria-label": `Code, ${name || "text"}` }, make("code", {}, coloured(source, name))));
}
