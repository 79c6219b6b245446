// Pictures: from a file, the clipboard or a drag, to bytes that the server reads and a thumbnail that people see.

import * as history from "./history.js";
import { make, newId } from "./dom.js";

const READ = new Set(["image/png", "image/jpeg", "image/webp", "image/gif", "image/bmp"]);
const LARGEST_SIDE = 4096;
const LARGEST_FILE = 8 << 20;

const urls = new Map();

/** A picture ({id, blob, name, width, height}) of a file; raises an Error that says what is wrong with it. */
export async function read(file) {
  const name = file.name || "pasted picture";
  const bitmap = await createImageBitmap(file).catch(() => null);
  if (!bitmap) throw new Error(`${name} is not a picture that this browser can open.`);
  let { width, height } = bitmap;
  let blob = file;
  if (!READ.has(file.type) || file.size > LARGEST_FILE || Math.max(width, height) > LARGEST_SIDE) {
    ({ blob, width, height } = await redraw(bitmap, file.type === "image/jpeg" ? file.type : "image/png"));
  }
  bitmap.close();
  // A copy in memory: the file on disk may change or go before it is sent.
  blob = new Blob([await blob.arrayBuffer()], { type: blob.type });
  return { id: newId(), blob, name, width, height };
}

async function redraw(bitmap, type) {
  const scale = Math.min(1, LARGEST_SIDE / Math.max(bitmap.width, bitmap.height));
  const canvas = make("canvas");
  canvas.width = Math.round(bitmap.width * scale);
  canvas.height = Math.round(bitmap.height * scale);
  canvas.getContext("2d").drawImage(bitmap, 0, 0, canvas.width, canvas.height);
  const draw = (as) => new Promise((resolve) => canvas.toBlob(resolve, as, 0.92));
  let blob = await draw(type);
  if (blob.size > LARGEST_FILE) blob = await draw("image/jpeg");
  return { blob, width: canvas.width, height: canvas.height };
}

/** The pictures among the files of a paste or a drop. */
export function among(transfer) {
  return [...(transfer?.files ?? [])].filter((file) => file.type.startsWith("image/"));
}

/** A picture's bytes in base64, without the `data:` in front. */
export function base64(blob) {
  return new Promise((resolve, reject) => {
    const reader = new FileReader();
    reader.onload = () => resolve(reader.result.slice(reader.result.indexOf(",") + 1));
    reader.onerror = () => reject(reader.error);
    reader.readAsDataURL(blob);
  });
}

export function fromBase64(text, type) {
  return new Blob([Uint8Array.from(atob(text), (letter) => letter.charCodeAt(0))], { type });
}

function url(picture) {
  if (!urls.has(picture.id)) urls.set(picture.id, URL.createObjectURL(picture.blob));
  return urls.get(picture.id);
}

/** An <img> of a picture at hand. */
export function image(picture, attributes = {}) {
  return make("img", { src: url(picture), alt: picture.name, width: picture.width, height: picture.height, ...attributes });
}

/** A button with a kept picture, which opens it large; says so when the picture is gone. */
export function thumbnail(id) {
  const button = make("button", { type: "button", class: "thumbnail" });
  history.picture(id).then((picture) => {
    if (!picture) {
      button.disabled = true;
      button.append(make("span", { class: "gone" }, "This picture is gone"));
      return;
    }
    button.setAttribute("aria-label", `Show ${picture.name} large`);
    button.append(image(picture, { alt: "" }));
    button.addEventListener("click", () => enlarge(picture));
  });
  return button;
}

/** Shows a picture over the page until Esc or a click. */
export function enlarge(picture) {
  const dialog = make("dialog", { class: "viewer", "aria-label": picture.name, onclick: () => dialog.close(), onclose: () => dialog.remove() },
    image(picture), make("p", {}, `${picture.name} · ${picture.width} × ${picture.height}`),
    make("button", { type: "button", class: "quiet-button" }, "Close"));
  document.body.append(dialog);
  dialog.showModal();
}
