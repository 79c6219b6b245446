// One turn on the page, and what can be done with it.

import { Composer } from "./composer.js";
import { copyButton, iconButton, make } from "./dom.js";
import { heatFigure } from "./heat.js";
import * as history from "./history.js";
import { icon } from "./icons.js";
import { show } from "./markdown.js";
import { short } from "./models.js";
import { thumbnail } from "./pictures.js";

const plain = new Intl.NumberFormat("en");

/** What an answer took, as short phrases with a longer explanation each. */
export function phrases(figures) {
  const speed = figures.seconds > 0 ? figures.tokens / figures.seconds : 0;
  const all = [
    speed && [`${speed < 10 ? speed.toFixed(1) : Math.round(speed)} tokens/s`, `${figures.tokens} tokens in ${figures.seconds.toFixed(2)} s`],
    figures.tokens && [`${plain.format(figures.tokens)} tokens`, "tokens of the answer"],
    figures.image && [`${plain.format(figures.image)} image tokens`, `what the pictures took of the prompt's ${figures.prompt}; looking took ${figures.look.toFixed(2)} s`],
    figures.cached && [`${plain.format(figures.cached)} of ${plain.format(figures.prompt)} cached`, "tokens of the prompt that did not have to be read again"],
    figures.truncated && [`${plain.format(figures.truncated)} left out`, "oldest tokens that did not fit the context"],
    figures.queue >= 0.1 && [`${figures.queue.toFixed(1)} s waiting`, "for a place"],
    figures.load >= 0.1 && [`${figures.load.toFixed(1)} s loading`, "the model"],
    figures.reason === "length" && ["cut at its length", "the most tokens allowed were reached"],
  ];
  return all.filter(Boolean);
}

/** A turn's article. `act` has edit(turn, text, pictures, how), again(turn), choose(turn), check, siblings(turn). */
export class TurnView {
  constructor(turn, act) {
    Object.assign(this, { turn, act, editing: null, heated: null });
    this.isAnswer = turn.role === "assistant";
    this.body = make("div", { class: this.isAnswer ? "markdown" : "words" });
    this.foot = make("footer", { class: "turn-foot" });
    this.problem = make("p", { class: "problem", hidden: true });
    this.element = make("article", {
      class: `turn ${this.isAnswer ? "answer" : "asked"}`, "data-turn": turn.id, "aria-label": this.isAnswer ? `${short(turn.model || "Model")} answered` : "You asked",
    });
    if (this.isAnswer) this.layAnswer();
    else this.layQuestion();
    this.update();
  }

  layQuestion() {
    const { pictures, content } = this.turn;
    this.body.textContent = content;
    this.element.append(...[
      pictures.length && make("div", { class: "pictures" }, pictures.map(thumbnail)), content && this.body, this.foot,
    ].filter(Boolean));
  }

  layAnswer() {
    this.thoughts = make("div", { class: "markdown" });
    this.thinking = make("details", { class: "thoughts", hidden: true }, make("summary", {}, "Thoughts"), this.thoughts);
    this.pulse = make("p", { class: "pulse", hidden: true }, make("i"), make("i"), make("i"), make("span", { class: "unseen" }, "Waiting for the first word"));
    this.heatPlace = make("div", { class: "heat-place" });
    this.element.append(this.thinking, this.pulse, this.body, this.heatPlace, this.problem, this.foot);
  }

  /** Draws the words that have come so far. */
  grow() {
    const { turn } = this;
    this.thinking.hidden = !turn.thinking;
    if (turn.thinking) show(this.thoughts, turn.thinking);
    show(this.body, turn.content);
    const busy = turn.state === "waiting" || turn.state === "streaming";
    this.pulse.hidden = !(busy && !turn.content);
    this.element.setAttribute("aria-busy", String(busy));
    this.element.classList.toggle("streaming", turn.state === "streaming" && turn.content !== "");
  }

  /** Draws how the turn stands: its words, its problem, its buttons. */
  update() {
    const { turn } = this;
    if (this.isAnswer) {
      this.grow();
      this.problem.hidden = !turn.problem;
      this.problem.textContent = turn.problem ?? "";
      if (turn.heat && this.heated === null) this.toggleHeat();
    }
    // Buttons are redrawn only when they change, so that the focus stays where it is.
    const standing = [turn.state, turn.heat, this.heated, ...this.act.siblings(turn).map(({ id }) => id)].join();
    if (standing === this.drawn) return;
    this.drawn = standing;
    const called = (button) => button.getAttribute("aria-label") ?? button.textContent;
    const focused = this.foot.contains(document.activeElement) ? called(document.activeElement) : null;
    this.foot.replaceChildren(...this.footing().filter(Boolean));
    if (focused) [...this.foot.querySelectorAll("button")].find((button) => called(button) === focused)?.focus();
  }

  footing() {
    const { turn, act } = this;
    if (turn.state === "waiting" || turn.state === "streaming") return [];
    const name = this.isAnswer ? "answer" : "message";
    const buttons = [
      this.branches(),
      turn.content && copyButton(`Copy this ${name}`, () => turn.content),
      this.isAnswer && (turn.problem
        ? make("button", { type: "button", class: "text-button", onclick: () => act.again(turn) }, icon("again"), "Try again")
        : iconButton("again", "Ask again", () => act.again(turn))),
      !this.isAnswer && iconButton("edit", "Edit this message", () => this.edit()),
      turn.heat && make("button", {
        type: "button", class: "text-button", "aria-pressed": String(this.heated === true), onclick: () => this.toggleHeat(),
      }, icon("heat"), "Where it looked"),
    ];
    const notes = turn.figures ? phrases(turn.figures) : [];
    if (turn.state === "stopped") notes.push(["stopped", "by you"]);
    return [
      make("div", { class: "row" }, buttons),
      notes.length && make("ul", { class: "figures", "aria-label": "What it took" }, notes.map(([short, long]) => make("li", { title: long }, short))),
    ];
  }

  branches() {
    const all = this.act.siblings(this.turn);
    if (all.length < 2) return null;
    const place = all.indexOf(this.turn);
    const step = (name, label, to) => iconButton(name, label, () => this.act.choose(all[to]), { disabled: !all[to] });
    return make("span", { class: "branches", role: "group", "aria-label": "Versions" },
      step("left", "Earlier version", place - 1), make("span", { class: "count" }, `${place + 1} / ${all.length}`), step("right", "Later version", place + 1));
  }

  async toggleHeat() {
    this.heated = this.heated !== true;
    this.update();
    if (this.heated && !this.heatPlace.firstChild) this.heatPlace.append(await heatFigure(this.turn.heat, this.turn.looked));
    this.heatPlace.hidden = !this.heated;
  }

  /** Puts an editor in place of the message; sending it grows a branch. */
  async edit() {
    if (this.editing || this.isAnswer) return;
    const held = (await Promise.all(this.turn.pictures.map(history.picture))).filter(Boolean);
    const done = () => {
      this.editing?.element.remove();
      this.editing = null;
      this.element.classList.remove("editing");
    };
    this.editing = new Composer({
      label: "Edit your message", text: this.turn.content, held, check: this.act.check,
      cancel: () => { done(); this.foot.querySelector('[aria-label="Edit this message"]')?.focus(); },
      send: (text, pictures, how) => { done(); this.act.edit(this.turn, text, pictures, how); },
    });
    this.element.classList.add("editing");
    this.element.append(this.editing.element);
    this.editing.focus();
  }
}
