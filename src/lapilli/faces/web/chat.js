// The conversation on show and the answers under way: ask, stop, ask again, edit, branch.

import { Away, Cut, Refused, stream } from "./api.js";
import * as tree from "./conversation.js";
import * as history from "./history.js";
import { newId } from "./dom.js";
import { isBlind } from "./models.js";
import { base64, fromBase64 } from "./pictures.js";
import { settings } from "./settings.js";

const SAVE_EVERY = 300; // milliseconds, while an answer grows
const NANO = 1e9;

/** Events: `opened`, `changed` (which turns there are, or how one stands), `grew` (detail: the turn), `away`, `listed`, `unkept`. */
export class Chat extends EventTarget {
  constructor() {
    super();
    this.conversation = tree.create(settings.model);
    this.live = new Map(); // conversation id -> {conversation, turn, controller}
    this.timers = new Map();
  }

  tell(kind, detail) {
    this.dispatchEvent(new CustomEvent(kind, { detail }));
  }

  get answering() {
    return this.live.get(this.conversation.id)?.turn ?? null;
  }

  start() {
    this.conversation = tree.create(settings.model);
    this.tell("opened");
  }

  /** Goes to a kept conversation; false if there is none of that id. */
  async open(id, { elsewhere = false } = {}) {
    const kept = this.live.get(id)?.conversation ?? (await history.conversation(id));
    if (!kept || kept.deleted) return false;
    if (!this.live.has(id) && !elsewhere) markCut(kept);
    this.conversation = kept;
    this.tell("opened");
    return true;
  }

  /** Says something with pictures, as the next turn or, with `instead`, on a branch beside that turn. */
  async ask(content, pictures, { instead = null, blind = false } = {}) {
    const { conversation } = this;
    await Promise.all(pictures.map((picture) => history.savePicture(picture, conversation)));
    const parent = instead ? tree.parentOf(conversation, instead) : tree.path(conversation).at(-1);
    const turn = tree.add(conversation, parent, { role: "user", content, pictures: pictures.map(({ id }) => id), blind });
    return this.answer(conversation, turn);
  }

  /** A new answer beside `turn`, which stays on its own branch. */
  again(turn) {
    return this.answer(this.conversation, tree.parentOf(this.conversation, turn));
  }

  choose(turn) {
    tree.choose(this.conversation, turn);
    this.tell("changed");
    this.save(this.conversation);
  }

  stop() {
    this.live.get(this.conversation.id)?.controller.abort();
  }

  async answer(conversation, question) {
    const controller = new AbortController();
    const turn = tree.add(conversation, question, {
      role: "assistant", thinking: "", model: conversation.model, state: "waiting", problem: "", figures: null, heat: null, looked: [],
    });
    conversation.updated = Date.now();
    this.live.set(conversation.id, { conversation, turn, controller });
    this.tell("changed");
    await this.save(conversation);
    try {
      await this.read(conversation, turn, controller.signal);
      turn.state = "done";
    } catch (error) {
      Object.assign(turn, standing(error));
      if (error instanceof Away) this.tell("away");
    }
    this.live.delete(conversation.id);
    await this.save(conversation);
    this.tell("changed", turn);
  }

  async read(conversation, turn, signal) {
    const asked = tree.leading(conversation, tree.parentOf(conversation, turn));
    // The reader has been warned: see `check` in main.js.
    const blind = asked.at(-1).blind || isBlind(conversation.model);
    turn.looked = blind ? [] : asked.flatMap((each) => each.pictures);
    const said = asked.filter((each) => each.role === "user" || each.content);
    const body = {
      model: conversation.model,
      messages: await tree.messages(conversation, said, pictureBytes, { blind }),
      options: settings.options,
      ...(settings.truncate && { truncate: true }),
      ...(settings.heatmap && turn.looked.length && { heatmap: true }),
    };
    for await (const part of stream("api/chat", body, signal)) {
      turn.state = "streaming";
      turn.content += part.message?.content ?? "";
      turn.thinking += part.message?.thinking ?? "";
      if (part.done) await this.finish(conversation, turn, part);
      this.tell("grew", turn);
      this.saveSoon(conversation);
    }
  }

  async finish(conversation, turn, part) {
    turn.figures = figures(part);
    if (!part.heatmap) return;
    const blob = fromBase64(part.heatmap, "image/png");
    const { width, height } = await createImageBitmap(blob);
    turn.heat = newId();
    await history.savePicture({ id: turn.heat, blob, name: "where it looked", width, height }, conversation);
  }

  saveSoon(conversation) {
    if (this.timers.has(conversation.id)) return;
    this.timers.set(conversation.id, setTimeout(() => this.save(conversation, { quietly: true }), SAVE_EVERY));
  }

  /** Keeps a conversation; a browser that has no room for it does not stop an answer. */
  async save(conversation, how = {}) {
    clearTimeout(this.timers.get(conversation.id));
    this.timers.delete(conversation.id);
    try {
      await history.save(conversation, how);
    } catch (error) {
      this.tell("unkept", error);
    }
    if (!how.quietly) this.tell("listed");
  }

  /** Keeps what has come so far, when the page goes. */
  saveAll() {
    for (const { conversation } of this.live.values()) history.save(conversation, { quietly: true });
  }
}

async function pictureBytes(id) {
  const picture = await history.picture(id);
  if (!picture) throw new Refused(0, "A picture of this conversation is gone from this browser.");
  return base64(picture.blob);
}

function markCut(conversation) {
  for (const turn of Object.values(conversation.turns)) {
    if (turn.state === "streaming" || turn.state === "waiting") Object.assign(turn, { state: "cut", problem: "The page was closed before this answer was done." });
  }
}

function standing(error) {
  if (error.name === "AbortError") return { state: "stopped" };
  if (error instanceof Cut) return { state: "cut", problem: error.message };
  const wait = error.wait ? ` It asks to be left alone for ${error.wait} s.` : "";
  return { state: "failed", problem: `${error.message}${wait}` };
}

/** What an answer took, out of the last object of its stream; durations in seconds. */
function figures(part) {
  return {
    tokens: part.eval_count ?? 0,
    seconds: (part.eval_duration ?? 0) / NANO,
    prompt: part.prompt_eval_count ?? 0,
    cached: part.cached_tokens ?? 0,
    image: part.image_tokens ?? 0,
    truncated: part.truncated ?? 0,
    load: (part.load_duration ?? 0) / NANO,
    queue: (part.queue_duration ?? 0) / NANO,
    look: (part.image_duration ?? 0) / NANO,
    total: (part.total_duration ?? 0) / NANO,
    reason: part.done_reason ?? "",
  };
}
