// The server's HTTP interface: one call, one stream, and what can go wrong.

/** The server said no, with its own words. `wait` is how many seconds it asks to be left alone. */
export class Refused extends Error {
  constructor(status, message, wait = 0) {
    super(message);
    this.status = status;
    this.wait = wait;
  }
}

/** Nobody answers at the server's address. */
export class Away extends Error {}

/** The answer ended before it was done. */
export class Cut extends Error {}

const KEY = "lapilli.key";
let asker = async () => null;
let asking = null;

function keptKey() {
  try {
    return sessionStorage.getItem(KEY) ?? localStorage.getItem(KEY);
  } catch {
    return null;
  }
}

/** Keeps the API key for this tab, or with `always` for this browser; null forgets it. */
export function keepKey(key, always = false) {
  sessionStorage.removeItem(KEY);
  localStorage.removeItem(KEY);
  if (key) (always ? localStorage : sessionStorage).setItem(KEY, key);
}

/** `ask(refused)` is called when the server wants a key: it resolves to true once one is kept. */
export function whenKeyIsNeeded(ask) {
  asker = ask;
}

async function request(path, { method = "GET", body, signal } = {}) {
  for (;;) {
    const key = keptKey();
    const headers = key ? { authorization: `Bearer ${key}` } : {};
    // A file goes as it is, everything else as JSON.
    const whole = body instanceof Blob;
    if (body !== undefined && !whole) headers["content-type"] = "application/json";
    let response;
    try {
      response = await fetch(path, { method, headers, body: whole ? body : body && JSON.stringify(body), signal, cache: "no-store" });
    } catch (error) {
      if (error.name === "AbortError") throw error;
      throw new Away("The server does not answer.");
    }
    if (response.ok) return response;
    const refused = await refusal(response);
    if (response.status !== 401) throw refused;
    // Several calls may be refused at once: the reader is asked once.
    asking ??= asker(key !== null).finally(() => { asking = null; });
    if (!(await asking)) throw refused;
  }
}

async function refusal(response) {
  const text = await response.text().catch(() => "");
  let message = text.trim().slice(0, 500);
  try {
    const { error } = JSON.parse(text);
    message = typeof error === "string" ? error : error?.message ?? message;
  } catch {
    // Not JSON: the text itself will do.
  }
  return new Refused(response.status, message || `The server answered ${response.status}.`, Number(response.headers.get("retry-after")) || 0);
}

/** The JSON that a path answers. */
export async function call(path, options) {
  return (await request(path, options)).json();
}

/** What a path answers, as it is. */
export async function fetchBlob(path) {
  return (await request(path)).blob();
}

/** The objects of an NDJSON stream, as they come; raises `Cut` if the last is not `done`. */
export async function* stream(path, body, signal) {
  const response = await request(path, { method: "POST", body, signal });
  let done = false;
  try {
    for await (const line of lines(response.body)) {
      const part = JSON.parse(line);
      if (part.error) throw new Refused(200, part.error);
      yield part;
      done ||= part.done === true;
    }
  } catch (error) {
    if (error instanceof TypeError || error instanceof SyntaxError) throw new Cut("The connection broke before the answer was done.");
    throw error;
  }
  if (!done) throw new Cut("The answer ended before it was done.");
}

async function* lines(bytes) {
  const reader = bytes.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  try {
    for (;;) {
      const { value, done } = await reader.read();
      if (done) break;
      const pieces = (rest + value).split("\n");
      rest = pieces.pop();
      for (const piece of pieces) if (piece.trim()) yield piece;
    }
    if (rest.trim()) yield rest;
  } finally {
    reader.cancel().catch(() => {});
  }
}
