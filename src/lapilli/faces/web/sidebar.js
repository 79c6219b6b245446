// The list of conversations: search, open, rename, export, delete.

import { matches } from "./conversation.js";
import { iconButton, make, toast } from "./dom.js";
import * as history from "./history.js";
import { icon } from "./icons.js";
import { download, fileName, pack } from "./transfer.js";

const DAY = 86_400_000;

function ageOf(moment) {
  const midnight = new Date().setHours(0, 0, 0, 0);
  if (moment >= midnight) return "Today";
  if (moment >= midnight - DAY) return "Yesterday";
  if (moment >= midnight - 6 * DAY) return "This week";
  return new Date(moment).toLocaleDateString(undefined, { month: "long", year: "numeric" });
}

export class Sidebar {
  constructor({ list, search }, { open, changed }) {
    Object.assign(this, { list, search, open, changed, current: "" });
    search.addEventListener("input", () => this.draw());
    search.addEventListener("keydown", (event) => {
      if (event.key === "ArrowDown") this.list.querySelector("button")?.focus();
      else if (event.key === "Escape" && search.value) {
        event.stopPropagation();
        search.value = "";
        this.draw();
      } else return;
      event.preventDefault();
    });
    list.addEventListener("keydown", (event) => this.onKey(event));
  }

  show(id) {
    this.current = id;
    return this.draw();
  }

  async draw() {
    const query = this.search.value.trim();
    const found = (await history.conversations()).filter((each) => !query || matches(each, query));
    if (this.list.querySelector(".rename")) return;
    const groups = new Map();
    for (const each of found) {
      const age = ageOf(each.updated);
      groups.set(age, [...(groups.get(age) ?? []), each]);
    }
    const focused = this.list.contains(document.activeElement) ? document.activeElement.dataset.open : null;
    this.list.replaceChildren(...[...groups].map(([age, members]) => make("section", {},
      make("h2", {}, age), make("ul", {}, members.map((each) => this.item(each))))));
    if (!found.length) this.list.append(make("p", { class: "none" }, query ? "Nothing found." : "What you ask is kept here, in this browser."));
    if (focused) this.list.querySelector(`[data-open="${CSS.escape(focused)}"]`)?.focus();
  }

  item(each) {
    const title = each.title || "Untitled";
    const more = iconButton("more", `More for ${title}`, () => this.menu(each, item, more), { class: "icon-button more", "aria-haspopup": "menu" });
    const item = make("li", { class: each.id === this.current ? "current" : null },
      make("button", { type: "button", class: "open", "data-open": each.id, "aria-current": each.id === this.current ? "page" : null, onclick: () => this.open(each.id) }, title), more);
    return item;
  }

  menu(each, item, opener) {
    const entry = (drawing, label, act) => make("button", { type: "button", role: "menuitem", onclick: () => { menu.hidePopover(); act(); } }, icon(drawing), label);
    const menu = make("div", {
      class: "menu", popover: "auto", role: "menu", "aria-label": `For ${each.title}`,
      ontoggle: (event) => {
        if (event.newState === "open") return;
        menu.remove();
        if (document.activeElement === document.body) opener.focus();
      },
      onkeydown: (event) => {
        const entries = [...menu.children];
        const step = { ArrowDown: 1, ArrowUp: -1 }[event.key];
        if (step) entries.at((entries.indexOf(document.activeElement) + step) % entries.length).focus();
      },
    },
    entry("edit", "Rename", () => this.rename(each, item)),
    entry("save", "Export", async () => download(fileName([each]), await pack([each]))),
    entry("trash", "Delete", () => this.remove(each)));
    document.body.append(menu);
    menu.showPopover();
    const { right, bottom } = opener.getBoundingClientRect();
    menu.style.left = `${Math.max(8, right - menu.offsetWidth)}px`;
    menu.style.top = `${Math.min(bottom + 4, innerHeight - menu.offsetHeight - 8)}px`;
    menu.firstChild.focus();
  }

  rename(each, item) {
    let over = false;
    const finish = async (keep) => {
      if (over) return;
      over = true;
      const title = box.value.trim().slice(0, 200);
      box.remove();
      if (keep && title) await this.changed(each.id, { title });
      await this.draw();
      this.list.querySelector(`[data-open="${CSS.escape(each.id)}"]`)?.focus();
    };
    const box = make("input", { class: "rename", "aria-label": "New title", onblur: () => finish(true), onkeydown: (event) => {
      if (event.key === "Enter") finish(true);
      else if (event.key === "Escape") finish(false);
      event.stopPropagation();
    } });
    box.value = each.title;
    item.replaceChildren(box);
    box.select();
    box.focus();
  }

  async remove(each) {
    const kept = await history.conversation(each.id);
    if (!kept) return;
    await history.hide(kept);
    await this.changed(each.id, { deleted: true });
    await this.draw();
    toast(`Deleted “${each.title || "Untitled"}”.`, { label: "Undo", act: async () => {
      await history.save(kept);
      await this.draw();
    } });
  }

  onKey(event) {
    const step = { ArrowDown: 1, ArrowUp: -1 }[event.key];
    const all = [...this.list.querySelectorAll(".open")];
    const place = all.indexOf(event.target);
    if (!step || place < 0) return;
    event.preventDefault();
    (all[place + step] ?? (step < 0 ? this.search : all[place])).focus();
  }
}
