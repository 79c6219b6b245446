// Conversations out to a JSON file and back in. A file is a stranger's: only what is known and well formed is taken.

import * as history from "./history.js";
import { make, newId } from "./dom.js";
import { base64, fromBase64 } from "./pictures.js";

const FORMAT = "lapilli conversations";
const VERSION = 1;
const ID = /^[0-9a-f]{8,64}$/;
const TYPES = /^image\/(png|jpeg|webp|gif|bmp)$/;

/** A JSON text with these conversations and their pictures. */
export async function pack(conversations) {
  const pictures = [];
  for (const { id } of conversations) {
    for (const { blob, ...rest } of await history.picturesOf(id)) pictures.push({ ...rest, type: blob.type, data: await base64(blob) });
  }
  return JSON.stringify({ format: FORMAT, version: VERSION, exported: new Date().toISOString(), conversations, pictures });
}

/** Hands a file to the browser to keep. */
export function download(name, text) {
  const url = URL.createObjectURL(new Blob([text], { type: "application/json" }));
  make("a", { href: url, download: name }).click();
  setTimeout(() => URL.revokeObjectURL(url), 60_000);
}

export function fileName(conversations) {
  const day = new Date().toISOString().slice(0, 10);
  const title = conversations.length === 1 ? conversations[0].title.toLowerCase().replace(/[^\p{L}\p{N}]+/gu, "-").replace(/^-|-$/g, "").slice(0, 40) : "";
  return `lapilli-${title || "conversations"}-${day}.json`;
}

/** Takes the conversations of a file in under new names, and says how many; raises an Error that tells what is wrong. */
export async function unpack(text) {
  let file;
  try {
    file = JSON.parse(text);
  } catch {
    throw new Error("This file is not JSON.");
  }
  if (file?.format !== FORMAT || !Array.isArray(file.conversations)) throw new Error("This file holds no conversations of lapilli.");
  if (file.version !== VERSION) throw new Error(`This file is of version ${file.version}; this page reads version ${VERSION}.`);
  const pictures = Array.isArray(file.pictures) ? file.pictures.filter(isPicture) : [];
  let count = 0;
  for (const each of file.conversations) {
    const found = clean(each);
    if (!found) continue;
    const { conversation, names } = found;
    for (const { id, name, width, height, type, data } of pictures.filter((picture) => picture.conversation === each.id)) {
      if (names.has(id)) await history.savePicture({ id: names.get(id), name: String(name).slice(0, 200), width, height, blob: fromBase64(data, type) }, conversation);
    }
    await history.save(conversation);
    count += 1;
  }
  return count;
}

function isPicture(each) {
  return ID.test(each?.id) && TYPES.test(each.type) && typeof each.data === "string" && /^[A-Za-z0-9+/]*={0,2}$/.test(each.data)
    && Number.isInteger(each.width) && Number.isInteger(each.height);
}

const words = (value, longest) => (typeof value === "string" ? value.slice(0, longest) : "");
const moment = (value) => (Number.isFinite(value) ? value : Date.now());

function clean(given) {
  if (!given || typeof given !== "object" || typeof given.turns !== "object" || !given.turns) return null;
  const names = new Map(); // old id -> new id, of turns and pictures
  const renamed = (id) => {
    if (!ID.test(id)) return null;
    if (!names.has(id)) names.set(id, newId());
    return names.get(id);
  };
  const turns = {};
  for (const [id, turn] of Object.entries(given.turns)) {
    if (ID.test(id) && (turn?.role === "user" || turn?.role === "assistant")) turns[renamed(id)] = cleanTurn(turn, renamed(id), renamed);
  }
  const chosen = {};
  for (const [parent, child] of Object.entries(given.chosen ?? {})) {
    const from = parent === "" ? "" : renamed(parent);
    if (from !== null && names.has(child)) chosen[from] = names.get(child);
  }
  const conversation = {
    id: newId(), title: words(given.title, 200), named: given.named === true, created: moment(given.created), updated: moment(given.updated),
    model: words(given.model, 400), system: words(given.system, 1_000_000), turns, chosen,
  };
  return { conversation, names };
}

function cleanTurn(turn, id, renamed) {
  const list = (value) => (Array.isArray(value) ? value.map(renamed).filter(Boolean) : []);
  const common = { id, parent: turn.parent === "" ? "" : renamed(turn.parent) ?? "", role: turn.role, content: words(turn.content, 10_000_000), pictures: list(turn.pictures), made: moment(turn.made) };
  if (turn.role === "user") return { ...common, blind: turn.blind === true };
  const figures = turn.figures && typeof turn.figures === "object"
    ? Object.fromEntries(["tokens", "seconds", "prompt", "cached", "image", "truncated", "load", "queue", "look", "total"].map((name) => [name, Number(turn.figures[name]) || 0]))
    : null;
  if (figures) figures.reason = words(turn.figures.reason, 20);
  return {
    ...common, thinking: words(turn.thinking, 10_000_000), model: words(turn.model, 400), problem: words(turn.problem, 1000), figures,
    state: ["done", "stopped", "failed", "cut"].includes(turn.state) ? turn.state : "cut", heat: renamed(turn.heat), looked: list(turn.looked),
  };
}
