// Elements made by hand: text is always text, never markup.

import { icon } from "./icons.js";

/** An element with attributes (`class`, `onclick`, `aria-…`, booleans) and children: nodes, strings, or nothing. */
export function make(tag, attributes = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (value === null || value === undefined || value === false) continue;
    if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else element.setAttribute(name, value === true ? "" : value);
  }
  element.append(...children.flat().filter((child) => child !== null && child !== undefined && child !== false));
  return element;
}

/** A button that shows a drawing and says `label`. */
export function iconButton(name, label, act, attributes = {}) {
  return make("button", {
    type: "button", class: "icon-button", "aria-label": label, title: label, onclick: act, ...attributes,
  }, icon(name));
}

export function setIcon(button, name) {
  button.replaceChildren(icon(name));
}

export function find(id) {
  return document.getElementById(id);
}

/** Says `text` to people who listen to the page. */
export function say(text) {
  find("status").textContent = text;
}

/** A short message at the foot of the page, with one thing to do about it. */
export function toast(text, action = null, seconds = 6) {
  const gone = () => box.remove();
  const box = make("div", { class: "toast", role: "status" }, make("span", {}, text));
  if (action) {
    box.append(make("button", { type: "button", class: "quiet-button", onclick: () => { gone(); action.act(); } }, action.label));
  }
  find("toasts").replaceChildren(box);
  setTimeout(gone, seconds * 1000);
}

/** Puts text on the clipboard; over plain http from another machine, browsers offer only the old way. */
export async function copy(text) {
  if (navigator.clipboard) return navigator.clipboard.writeText(text);
  const box = make("textarea", { class: "unseen", readonly: true });
  box.value = text;
  document.body.append(box);
  box.select();
  document.execCommand("copy");
  box.remove();
}

/** A copy button that shows for a moment that it worked. */
export function copyButton(label, text) {
  const button = iconButton("copy", label, async () => {
    await copy(text());
    setIcon(button, "check");
    say("Copied");
    setTimeout(() => setIcon(button, "copy"), 1500);
  });
  return button;
}

/** A name that no other thing has; crypto.randomUUID is missing over plain http. */
export function newId() {
  return Array.from(crypto.getRandomValues(new Uint8Array(12)), (byte) => byte.toString(16).padStart(2, "0")).join("");
}
