// What was said, kept in this browser (IndexedDB); in memory alone where the browser keeps nothing.

const NAME = "lapilli";
const channel = "BroadcastChannel" in globalThis ? new BroadcastChannel(NAME) : null;

let database = null;
const memory = { conversations: new Map(), pictures: new Map() };

/** Opens the history; false if nothing will outlive the page. */
export async function open() {
  try {
    database = await new Promise((resolve, reject) => {
      const opening = indexedDB.open(NAME, 1);
      opening.onupgradeneeded = () => {
        opening.result.createObjectStore("conversations", { keyPath: "id" });
        opening.result.createObjectStore("pictures", { keyPath: "id" }).createIndex("conversation", "conversation");
      };
      opening.onsuccess = () => resolve(opening.result);
      opening.onerror = () => reject(opening.error);
    });
    await purge();
    return true;
  } catch {
    database = null;
    return false;
  }
}

/** Calls `heard(id)` when another tab has changed a conversation. */
export function whenElsewhere(heard) {
  if (channel) channel.onmessage = ({ data }) => heard(data);
}

function wait(request) {
  return new Promise((resolve, reject) => {
    request.onsuccess = () => resolve(request.result);
    request.onerror = () => reject(request.error);
  });
}

function store(name, mode = "readonly") {
  return database.transaction(name, mode).objectStore(name);
}

async function put(name, value) {
  if (database) await wait(store(name, "readwrite").put(value));
  else memory[name].set(value.id, structuredClone(value));
}

async function get(name, id) {
  return database ? wait(store(name).get(id)) : structuredClone(memory[name].get(id));
}

async function all(name) {
  return database ? wait(store(name).getAll()) : [...memory[name].values()].map((value) => structuredClone(value));
}

async function drop(name, id) {
  if (database) await wait(store(name, "readwrite").delete(id));
  else memory[name].delete(id);
}

/** All conversations, newest first. */
export async function conversations() {
  return (await all("conversations")).filter((each) => !each.deleted).sort((a, b) => b.updated - a.updated);
}

export function conversation(id) {
  return get("conversations", id);
}

/** Keeps a conversation as it stands; `quietly` does not tell other tabs. */
export async function save(conversation, { quietly = false } = {}) {
  await put("conversations", conversation);
  if (!quietly) channel?.postMessage(conversation.id);
}

export function picture(id) {
  return get("pictures", id);
}

/** Keeps a picture ({id, blob, name, width, height}) for a conversation. */
export function savePicture(picture, conversation) {
  return put("pictures", { ...picture, conversation: conversation.id });
}

export async function picturesOf(id) {
  if (database) return wait(store("pictures").index("conversation").getAll(id));
  return [...memory.pictures.values()].filter((each) => each.conversation === id);
}

/** Takes a conversation off the list; `remove` makes it final, `save` without `deleted` brings it back. */
export function hide(conversation) {
  return save({ ...conversation, deleted: Date.now() });
}

export async function remove(id) {
  for (const each of await picturesOf(id)) await drop("pictures", each.id);
  await drop("conversations", id);
  channel?.postMessage(id);
}

async function purge() {
  const minute = 60_000;
  for (const each of await all("conversations")) if (each.deleted && Date.now() - each.deleted > minute) await remove(each.id);
}
