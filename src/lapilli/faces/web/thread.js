// The turns on show, one under another, and where the page is scrolled to.

import { make, say } from "./dom.js";
import { TurnView } from "./message.js";

const NEAR = 96; // pixels from the end that still count as being there
const SPOKEN = 1200; // characters of an answer that are read out

export class Thread {
  constructor(place, scroll, toEnd, act) {
    Object.assign(this, { place, scroll, toEnd, act });
    this.views = new Map();
    this.following = true;
    this.grown = new Set();
    scroll.addEventListener("scroll", () => this.onScroll(), { passive: true });
    toEnd.addEventListener("click", () => this.goToEnd());
    // Pictures arrive after their turn is laid out.
    new ResizeObserver(() => this.follow()).observe(place);
  }

  clear() {
    this.views.clear();
    this.place.replaceChildren();
    this.following = true;
  }

  /** Shows these turns; views that stay keep their place, their focus and what is being edited in them. */
  show(turns) {
    const kept = new Set(turns.map((turn) => turn.id));
    for (const [id, view] of this.views) {
      if (kept.has(id)) continue;
      view.element.remove();
      this.views.delete(id);
    }
    turns.forEach((turn, place) => {
      let view = this.views.get(turn.id);
      if (view) view.update();
      else {
        view = new TurnView(turn, this.act);
        this.views.set(turn.id, view);
      }
      if (this.place.children[place] !== view.element) this.place.insertBefore(view.element, this.place.children[place] ?? null);
    });
    this.follow();
  }

  /** Draws a growing answer, at most once a frame. */
  grow(turn) {
    if (this.grown.size === 0) requestAnimationFrame(() => {
      for (const id of this.grown) this.views.get(id)?.grow();
      this.grown.clear();
      this.follow();
    });
    this.grown.add(turn.id);
  }

  /** Reads a finished answer out to those who listen. */
  speak(turn) {
    const words = this.views.get(turn.id)?.body.textContent ?? "";
    say(turn.problem ? turn.problem : `${turn.state === "stopped" ? "Stopped. " : ""}${words.slice(0, SPOKEN)}`);
  }

  edit(turn) {
    this.views.get(turn.id)?.edit();
  }

  goToEnd() {
    this.following = true;
    this.follow();
  }

  follow() {
    if (this.following) this.scroll.scrollTop = this.scroll.scrollHeight;
    this.toEnd.hidden = this.following;
  }

  onScroll() {
    this.following = this.scroll.scrollHeight - this.scroll.scrollTop - this.scroll.clientHeight < NEAR;
    this.toEnd.hidden = this.following;
  }
}

/** A notice over the thread, with a way out. */
export function notice(text, label, act) {
  return make("div", { class: "notice", role: "status" }, make("span", {}, text), make("button", { type: "button", class: "quiet-button", onclick: act }, label));
}
