// Which models the server has, which of them can see, and the list to pick from.

import { call } from "./api.js";
import { make, say } from "./dom.js";
import { icon } from "./icons.js";

const GIGA = 1e9;
const MEGA = 1e6;

let models = [];
let loaded = new Set();

/** Asks the server; servers that do not tell capabilities in their list are asked model by model. */
export async function refresh() {
  const [tags, running] = await Promise.all([call("api/tags"), call("api/ps").catch(() => ({ models: [] }))]);
  models = await Promise.all((tags.models ?? []).map(async (model) => ({
    name: model.name,
    size: model.size ?? 0,
    details: model.details ?? {},
    capabilities: model.capabilities ?? (await capabilities(model.name)),
  })));
  loaded = new Set((running.models ?? []).map((model) => model.name));
  return models;
}

async function capabilities(name) {
  const known = models.find((model) => model.name === name);
  if (known) return known.capabilities;
  return call("api/show", { method: "POST", body: { model: name } }).then((shown) => shown.capabilities ?? [], () => []);
}

/** The model of that name, with or without `:latest`; undefined if the server has none. */
export function model(name) {
  return models.find((each) => each.name === name || short(each.name) === short(name));
}

export function chatModels() {
  return models.filter((each) => each.capabilities.length === 0 || each.capabilities.includes("completion"));
}

export function sees(name) {
  return model(name)?.capabilities.includes("vision") ?? false;
}

/** True if the server says that the model cannot see; one that it does not know may be able to. */
export function isBlind(name) {
  return model(name) !== undefined && !sees(name);
}

/** The first model that can see, loaded ones first. */
export function seeing() {
  const able = chatModels().filter((each) => each.capabilities.includes("vision"));
  return able.find((each) => loaded.has(each.name)) ?? able[0];
}

export function short(name) {
  return name.replace(/:latest$/, "");
}

function size(bytes) {
  return bytes >= GIGA ? `${(bytes / GIGA).toFixed(1)} GB` : `${Math.max(1, Math.round(bytes / MEGA))} MB`;
}

/** A button that names the model and opens the list; `picked(name)` is called with another one. */
export class ModelPicker {
  constructor(place, picked) {
    this.name = "";
    this.picked = picked;
    this.active = 0;
    this.button = make("button", {
      type: "button", class: "model-button", id: "model", "aria-haspopup": "listbox", "aria-expanded": "false",
      onclick: () => (this.isOpen ? this.close() : this.open()), onkeydown: (event) => this.onKey(event),
    });
    this.list = make("ul", { id: "model-list", role: "listbox", class: "model-list", tabindex: "-1", hidden: true, "aria-label": "Models", onkeydown: (event) => this.onKey(event) });
    place.append(this.button, this.list);
    document.addEventListener("pointerdown", (event) => { if (!place.contains(event.target)) this.close(); });
    place.addEventListener("focusout", (event) => { if (event.relatedTarget && !place.contains(event.relatedTarget)) this.close(); });
  }

  get isOpen() {
    return !this.list.hidden;
  }

  show(name) {
    this.name = name;
    const known = model(name);
    const label = name ? short(name) : "No model";
    this.button.setAttribute("aria-label", `Model: ${label}${sees(name) ? ", can see pictures" : known ? ", cannot see pictures" : ""}`);
    this.button.replaceChildren(make("span", { class: "model-name" }, label), sees(name) ? icon("eye") : "", icon("down"));
    this.button.classList.toggle("missing", Boolean(name) && models.length > 0 && !known);
  }

  async open() {
    this.draw();
    this.list.hidden = false;
    this.button.setAttribute("aria-expanded", "true");
    this.list.focus();
    await refresh().catch(() => {});
    if (this.isOpen) this.draw(this.marked);
  }

  close(refocus = false) {
    if (!this.isOpen) return;
    this.list.hidden = true;
    this.button.setAttribute("aria-expanded", "false");
    if (refocus) this.button.focus();
  }

  /** Lists the models; the mark stands at `marked`, at first the one in use. */
  draw(marked = this.name) {
    const able = chatModels();
    const chosen = able.findIndex((each) => short(each.name) === short(this.name));
    this.active = Math.max(0, able.findIndex((each) => short(each.name) === short(marked)));
    this.list.replaceChildren(...able.map((each, place) => make("li", {
      id: `model-${place}`, role: "option", "aria-selected": String(place === chosen), onclick: () => this.pick(place), onpointermove: () => this.move(place),
    },
    make("span", { class: "model-name" }, short(each.name)),
    make("span", { class: "model-facts" },
      [each.details.parameter_size, each.details.quantization_level, each.size ? size(each.size) : "", loaded.has(each.name) ? "loaded" : ""].filter(Boolean).join(" · ")),
    each.capabilities.includes("vision") ? make("span", { class: "sees" }, icon("eye"), "sees") : make("span", { class: "blind" }, "words only"))));
    if (!able.length) this.list.replaceChildren(make("li", { class: "empty", role: "option", "aria-disabled": "true" }, "No model yet. In a terminal: lapilli pull llava"));
    this.move(this.active);
  }

  move(place) {
    const options = [...this.list.children];
    this.active = Math.min(Math.max(place, 0), options.length - 1);
    this.marked = chatModels()[this.active]?.name;
    options.forEach((option, each) => option.classList.toggle("active", each === this.active));
    options[this.active]?.scrollIntoView({ block: "nearest" });
    this.list.setAttribute("aria-activedescendant", options[this.active]?.id ?? "");
  }

  pick(place) {
    const chosen = chatModels()[place];
    this.close(true);
    if (!chosen || chosen.name === this.name) return;
    this.picked(chosen.name);
    say(`${short(chosen.name)} answers from now on`);
  }

  onKey(event) {
    const { key } = event;
    if (!this.isOpen) {
      if (key === "ArrowDown" || key === "ArrowUp") this.open();
      else return;
    } else if (key === "ArrowDown") this.move(this.active + 1);
    else if (key === "ArrowUp") this.move(this.active - 1);
    else if (key === "Home") this.move(0);
    else if (key === "End") this.move(Infinity);
    else if (key === "Enter" || key === " ") this.pick(this.active);
    else if (key === "Escape") this.close(true);
    else if (key.length === 1) {
      const found = chatModels().findIndex((each) => each.name.startsWith(key.toLowerCase()));
      if (found >= 0) this.move(found);
    } else return;
    event.preventDefault();
    event.stopPropagation();
  }
}
