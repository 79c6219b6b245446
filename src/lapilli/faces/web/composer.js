// Where words and pictures are put together: at the foot of the page, and in place of a message being edited.

import { iconButton, make, say, toast } from "./dom.js";
import { icon } from "./icons.js";
import * as pictures from "./pictures.js";

const TYPES = "image/*";

/**
 * A form with a text box and a strip of pictures.
 *
 * `send(text, pictures, {blind})` is called when it is sent; `check(pictures)` may answer a warning,
 * {text, choices: [{label, act}]}, which holds the sending until one is taken; `stop` ends an answer under way; `cancel` makes it an editor.
 */
export class Composer {
  constructor({ id, label, placeholder = "", text = "", held = [], send, stop = null, cancel = null, check = () => null, tools = [] }) {
    Object.assign(this, { send, cancel, check });
    this.pictures = [...held];
    this.strip = make("ul", { class: "strip", "aria-label": "Pictures to send", hidden: true });
    this.warning = make("div", { class: "warning", role: "alert", hidden: true });
    this.words = make("textarea", {
      id, rows: "1", placeholder, "aria-label": label, autocomplete: "off",
      oninput: () => this.refresh(), onkeydown: (event) => this.onKey(event), onpaste: (event) => this.onPaste(event),
    });
    this.words.value = text;
    this.file = make("input", { type: "file", accept: TYPES, multiple: true, hidden: true, "aria-label": "Picture files", onchange: () => {
      this.add([...this.file.files]);
      this.file.value = "";
    } });
    this.sendButton = make("button", { class: "send", "aria-label": cancel ? "Send the edited message" : "Send", title: "Send" }, icon("send"));
    this.stopButton = make("button", { type: "button", class: "send stop", "aria-label": "Stop the answer", title: "Stop (Esc)", hidden: true, onclick: stop }, icon("stop"));
    this.element = make("form", { class: cancel ? "composer editor" : "composer", onsubmit: (event) => {
      event.preventDefault();
      this.submit();
    } },
    this.strip, this.warning, this.words, this.file,
    make("div", { class: "tools" },
      iconButton("picture", "Add pictures", () => this.file.click()), tools,
      make("span", { class: "stretch" }),
      cancel && make("button", { type: "button", class: "quiet-button", onclick: cancel }, "Cancel"),
      this.stopButton, this.sendButton));
    this.draw();
  }

  get text() {
    return this.words.value.trim();
  }

  focus() {
    this.words.focus();
    this.words.setSelectionRange(this.words.value.length, this.words.value.length);
    this.refresh();
  }

  clear() {
    this.words.value = "";
    this.pictures = [];
    this.draw();
  }

  restore(text, held) {
    this.words.value ||= text;
    this.pictures = [...held, ...this.pictures];
    this.draw();
  }

  setAnswering(answering) {
    const held = document.activeElement === this.sendButton || document.activeElement === this.stopButton;
    this.answering = answering;
    this.stopButton.hidden = !answering;
    this.sendButton.hidden = answering;
    if (held) this.words.focus();
  }

  async add(files) {
    for (const file of files) {
      try {
        this.pictures.push(await pictures.read(file));
      } catch (error) {
        toast(error.message);
      }
    }
    this.draw();
    say(this.pictures.length === 1 ? "1 picture to send" : `${this.pictures.length} pictures to send`);
    this.words.focus();
  }

  remove(picture) {
    this.pictures = this.pictures.filter((each) => each !== picture);
    this.draw();
    (this.strip.querySelector(".remove") ?? this.words).focus();
  }

  draw() {
    this.strip.hidden = this.pictures.length === 0;
    this.strip.replaceChildren(...this.pictures.map((picture) => make("li", {},
      make("button", { type: "button", class: "thumbnail", "aria-label": `Show ${picture.name} large`, onclick: () => pictures.enlarge(picture) },
        pictures.image(picture, { alt: "" })),
      iconButton("close", `Remove ${picture.name}`, () => this.remove(picture), { class: "icon-button remove" }))));
    this.refresh();
  }

  /** Fits the box to its words, and looks again whether there is something to warn of. */
  refresh() {
    this.words.style.height = "auto";
    this.words.style.height = `${this.words.scrollHeight}px`;
    this.sendButton.disabled = !this.text && this.pictures.length === 0;
    const found = this.check(this.pictures);
    const key = found ? found.text : "";
    if (key === this.warned) return found;
    this.warned = key;
    this.warning.hidden = !found;
    this.warning.replaceChildren();
    if (found) {
      const choices = [...found.choices, { label: "Send the words only", act: () => this.deliver({ blind: true }) }];
      this.warning.append(make("p", {}, found.text), make("div", { class: "row" },
        choices.map(({ label, act }) => make("button", { type: "button", class: "quiet-button", onclick: () => { act(); this.refresh(); } }, label))));
    }
    return found;
  }

  submit() {
    if (this.answering || (!this.text && this.pictures.length === 0)) return;
    if (this.refresh()) {
      this.warning.querySelector("button").focus();
      say(this.warned);
      return;
    }
    this.deliver({ blind: false });
  }

  deliver(how) {
    if (this.answering || (how.blind && !this.text)) return;
    const { text, pictures: held } = this;
    if (!this.cancel) this.clear();
    this.send(text, held, how);
  }

  onKey(event) {
    if (event.isComposing) return;
    // On a phone Enter is the only way to a new line.
    const typed = event.key === "Enter" && !event.shiftKey && !matchMedia("(pointer: coarse)").matches;
    if (typed || (event.key === "Enter" && (event.ctrlKey || event.metaKey))) {
      event.preventDefault();
      this.submit();
    } else if (event.key === "Escape" && this.cancel) {
      event.stopPropagation();
      this.cancel();
    }
  }

  onPaste(event) {
    const files = pictures.among(event.clipboardData);
    if (!files.length) return;
    event.preventDefault();
    this.add(files);
  }
}
