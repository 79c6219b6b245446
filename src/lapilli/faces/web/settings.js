// What is asked for beside the words: kept in this browser, edited in a drawer.

import { call, keepKey } from "./api.js";
import { find, iconButton, make, say } from "./dom.js";

const KEPT = "lapilli.settings";

// Empty means: what the model's own parameters say.
const OPTIONS = [
  { name: "temperature", label: "Temperature", hint: "0 always takes the likeliest word", min: 0, max: 2, step: 0.05 },
  { name: "top_p", label: "Top p", hint: "leaves out the unlikeliest words", min: 0, max: 1, step: 0.01 },
  { name: "seed", label: "Seed", hint: "the same number, the same answer", min: 0, max: 2 ** 31 - 1, step: 1 },
  { name: "num_predict", label: "Most tokens", hint: "where an answer is cut", min: 1, max: 1_000_000, step: 1 },
  { name: "num_ctx", label: "Context", hint: "tokens of question and answer", min: 16, max: 1_000_000, step: 1 },
];

const KEYS = [
  ["Enter", "send"], ["Shift Enter", "new line"], ["Esc", "stop the answer"], ["↑", "edit your last message"],
  ["Ctrl K", "search"], ["Ctrl Shift O", "new conversation"],
];

export const settings = { options: {}, truncate: false, heatmap: false, model: "", aside: true };

/** Reads what was kept; a browser that keeps nothing starts from the beginning. */
export function restore() {
  try {
    Object.assign(settings, JSON.parse(localStorage.getItem(KEPT) ?? "{}"));
  } catch {
    // Defaults, then.
  }
}

export function keep(changes) {
  Object.assign(settings, changes);
  try {
    localStorage.setItem(KEPT, JSON.stringify(settings));
  } catch {
    // For this page only, then.
  }
}

/** Opens the drawer for a conversation; `changed` is called when its system prompt was edited. */
export function openSettings(conversation, changed) {
  const system = make("textarea", { id: "system", rows: "5", placeholder: "You are a careful reader of pictures…", oninput: () => {
    conversation.system = system.value;
    changed();
  } });
  system.value = conversation.system;

  const truncate = make("input", { type: "checkbox", id: "truncate", onchange: () => keep({ truncate: truncate.checked }) });
  truncate.checked = settings.truncate;
  const about = make("p", { class: "about" });
  call("api/version").then((known) => about.append(`lapilli ${known.lapilli ?? known.version}`), () => {});

  const dialog = make("dialog", { class: "drawer", "aria-labelledby": "settings-title", onclose: () => dialog.remove(), onclick: (event) => {
    if (event.target === dialog) dialog.close();
  } },
  make("div", { class: "drawer-body" },
    make("header", {}, make("h2", { id: "settings-title" }, "Settings"), iconButton("close", "Close settings", () => dialog.close())),
    make("section", {},
      make("h3", {}, "This conversation"),
      make("label", { for: "system" }, "System prompt"), system),
    make("section", {},
      make("h3", {}, "Every conversation"),
      OPTIONS.map(field),
      make("label", { class: "check", for: "truncate" }, truncate,
        make("span", {}, "Leave out the oldest turns when a conversation is too long", make("small", {}, "Otherwise the server refuses it, and says why")))),
    make("section", {},
      make("h3", {}, "Keys"),
      make("dl", { class: "keys" }, KEYS.map(([key, what]) => make("div", {}, make("dt", {}, make("kbd", {}, key)), make("dd", {}, what))))),
    make("footer", {},
      make("button", { type: "button", class: "quiet-button", onclick: () => { keepKey(null); say("API key forgotten"); dialog.close(); } }, "Forget the API key"), about)));
  document.body.append(dialog);
  dialog.showModal();
}

function field({ name, label, hint, min, max, step }) {
  const id = `option-${name}`;
  const problem = make("small", { class: "problem", id: `${id}-problem`, role: "alert" });
  const input = make("input", {
    id, type: "number", inputmode: step < 1 ? "decimal" : "numeric", min, max, step, placeholder: "model’s own",
    "aria-describedby": `${id}-hint ${id}-problem`, oninput: () => {
      const wrong = !input.validity.valid;
      input.toggleAttribute("aria-invalid", wrong);
      problem.textContent = wrong ? `From ${min} to ${max}${step === 1 ? ", a whole number" : ""}` : "";
      if (wrong) return;
      const { [name]: _, ...others } = settings.options;
      keep({ options: input.value === "" ? others : { ...others, [name]: Number(input.value) } });
    },
  });
  if (settings.options[name] !== undefined) input.value = settings.options[name];
  return make("div", { class: "option" },
    make("label", { for: id }, label, make("small", { id: `${id}-hint` }, hint)), input, problem);
}

/** Asks for the API key; true once one is kept. */
export function askForKey(wrong) {
  return new Promise((resolve) => {
    let given = false;
    const key = make("input", { id: "key", type: "password", autocomplete: "off", required: true, spellcheck: "false" });
    const always = make("input", { type: "checkbox", id: "key-always" });
    const form = make("form", { method: "dialog", onsubmit: () => {
      given = true;
      keepKey(key.value.trim(), always.checked);
    } },
    make("h2", { id: "key-title" }, "This server asks for a key"),
    make("p", {}, wrong ? "The key it was given is not one of its own." : "Whoever runs it has set LAPILLI_API_KEYS."),
    make("label", { for: "key" }, "API key"), key,
    make("label", { class: "check", for: "key-always" }, always, make("span", {}, "Keep it in this browser")),
    make("div", { class: "row" },
      make("button", { type: "button", class: "quiet-button", onclick: () => dialog.close() }, "Not now"),
      make("button", { class: "main-button" }, "Use this key")));
    const dialog = make("dialog", { class: "card", "aria-labelledby": "key-title", onclose: () => {
      dialog.remove();
      resolve(given);
    } }, form);
    find("status").after(dialog);
    dialog.showModal();
  });
}
