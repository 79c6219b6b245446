// A conversation is a tree of turns: editing or asking again grows a branch, nothing is lost.

import { newId } from "./dom.js";

const TITLE = 60;
const ROOT = "";

/** A new conversation, empty. */
export function create(model = "") {
  const now = Date.now();
  return { id: newId(), title: "", named: false, created: now, updated: now, model, system: "", turns: {}, chosen: {} };
}

/** Adds a turn under `parent` (null: at the root) and goes to it. */
export function add(conversation, parent, fields) {
  const turn = {
    id: newId(), parent: parent?.id ?? ROOT, role: "user", content: "", pictures: [], made: Date.now(), ...fields,
  };
  conversation.turns[turn.id] = turn;
  conversation.chosen[turn.parent] = turn.id;
  if (!conversation.named) conversation.title = titleOf(conversation);
  return turn;
}

function children(conversation, id) {
  return Object.values(conversation.turns).filter((turn) => turn.parent === id).sort((a, b) => a.made - b.made);
}

/** The turns on show, from the first to the last. */
export function path(conversation) {
  const found = [];
  for (let id = ROOT; ;) {
    const next = conversation.turns[conversation.chosen[id]] ?? children(conversation, id).at(-1);
    if (!next || found.includes(next)) return found;
    found.push(next);
    id = next.id;
  }
}

/** The turns that lead to `turn`, itself last. */
export function leading(conversation, turn) {
  const found = [];
  for (let each = turn; each && !found.includes(each); each = conversation.turns[each.parent]) found.unshift(each);
  return found;
}

export function parentOf(conversation, turn) {
  return conversation.turns[turn.parent] ?? null;
}

/** The turn and those that stand in its place on other branches, oldest first. */
export function siblings(conversation, turn) {
  return children(conversation, turn.parent);
}

/** Shows the branch that `turn` is on. */
export function choose(conversation, turn) {
  for (const each of leading(conversation, turn)) conversation.chosen[each.parent] = each.id;
}

export function titleOf(conversation) {
  const first = path(conversation)[0];
  if (!first) return "";
  const words = first.content.trim().replace(/\s+/g, " ");
  if (!words) return first.pictures.length > 1 ? `${first.pictures.length} pictures` : "A picture";
  return words.length > TITLE ? `${words.slice(0, TITLE - 1).trimEnd()}…` : words;
}

/** True if every word of `query` stands in the title or in what was said, on any branch. */
export function matches(conversation, query) {
  const text = [conversation.title, ...Object.values(conversation.turns).map((turn) => turn.content)].join("\n").toLowerCase();
  return query.toLowerCase().split(/\s+/).every((word) => text.includes(word));
}

/** The bodies of messages for the API; `bytes(id)` gives a picture in base64. */
export async function messages(conversation, turns, bytes, { blind = false } = {}) {
  const said = await Promise.all(turns.map(async (turn) => {
    const message = { role: turn.role, content: turn.content };
    if (turn.pictures.length && !blind) message.images = await Promise.all(turn.pictures.map(bytes));
    return message;
  }));
  const system = conversation.system.trim();
  return system ? [{ role: "system", content: system }, ...said] : said;
}
