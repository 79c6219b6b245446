// Documents beside the conversations: let files fall in, ask, and see what an answer stands on.

import { call, fetchBlob, stream } from "./api.js";
import { find, iconButton, make, say, toast } from "./dom.js";
import { icon } from "./icons.js";

const COUNTED = new Intl.NumberFormat();

const query = (values) => new URLSearchParams(values).toString();

/** Where documents lie and are asked about; `model()` names who answers. */
export class Desk {
  constructor(model) {
    Object.assign(this, { model, asking: null, shown: null });
    this.list = make("ul", { class: "papers", "aria-label": "Documents that are here" });
    this.file = make("input", { type: "file", multiple: true, hidden: true, "aria-label": "Files to add", onchange: () => this.add([...this.file.files]) });
    this.words = make("input", { id: "desk-words", type: "text", placeholder: "Ask your documents", autocomplete: "off", required: true });
    this.send = iconButton("send", "Ask", null, { type: "submit", class: "icon-button send" });
    this.answer = make("div", { class: "desk-answer", "aria-live": "polite" });
    this.page = make("section", { class: "paper", "aria-label": "Document", tabindex: "0", hidden: true });
    this.dialog = make("dialog", { class: "desk", "aria-labelledby": "desk-title", onclose: () => this.stop() },
      make("header", {}, make("h2", { id: "desk-title" }, "Documents"), iconButton("close", "Close", () => this.dialog.close())),
      make("div", { class: "desk-body" },
        make("section", { class: "shelf", "aria-label": "Shelf" },
          make("button", { type: "button", class: "new-button", onclick: () => this.file.click() }, icon("new"), "Add files"), this.file,
          make("p", { class: "hint" }, "Or drop them here: text, PDF, DOCX, tables, pictures."), this.list),
        make("section", { class: "questions", "aria-label": "Questions" },
          make("form", { class: "desk-form", onsubmit: (event) => { event.preventDefault(); this.ask(this.words.value.trim()); } },
            make("label", { class: "unseen", for: "desk-words" }, "Question"), this.words, this.send),
          this.answer, this.page)));
    this.takeDrops();
    document.body.append(this.dialog);
  }

  async open() {
    this.dialog.showModal();
    this.words.focus();
    await this.refresh();
  }

  async refresh() {
    try {
      const { documents } = await call("api/documents");
      this.list.replaceChildren(...documents.map((each) => this.item(each)));
      if (!documents.length) this.list.append(make("li", { class: "none" }, "Nothing here yet."));
    } catch (error) {
      this.list.replaceChildren(make("li", { class: "none" }, error.message));
    }
  }

  item({ source, kind, title, characters }) {
    const name = title || source;
    return make("li", {},
      make("button", { type: "button", class: "open", title: source, onclick: () => this.show({ source }) },
        make("span", { class: "name" }, icon(kind === "picture" ? "picture" : "document"), make("span", {}, name)),
        make("small", {}, `${kind} · ${COUNTED.format(characters)} characters`)),
      iconButton("trash", `Remove ${name}`, () => this.remove(source, name)));
  }

  /** One file after another, so that each is told of as it is done. */
  async add(files) {
    this.file.value = "";
    for (const file of files) {
      say(`Adding ${file.name}`);
      const waiting = make("li", { class: "none" }, `Adding ${file.name} …`);
      this.list.prepend(waiting);
      try {
        const { unchanged } = await call(`api/documents?${query({ name: file.name, model: this.model() })}`, { method: "POST", body: file });
        say(unchanged.length ? `${file.name} is here already` : `${file.name} was added`);
      } catch (error) {
        toast(`${file.name}: ${error.message}`);
      }
      waiting.remove();
      await this.refresh();
    }
  }

  remove(source, name) {
    toast(`Remove “${name}”?`, { label: "Remove", act: async () => {
      await call(`api/documents?${query({ source })}`, { method: "DELETE" }).catch((error) => toast(error.message));
      if (this.shown === source) this.page.hidden = true;
      await this.refresh();
    } });
    // A dialog lies over the page, and what is said about it has to lie in it.
    this.dialog.append(find("toasts"));
  }

  stop() {
    this.asking?.abort();
    document.body.append(find("toasts"));
  }

  async ask(question) {
    if (!question) return;
    this.asking?.abort();
    const { signal } = (this.asking = new AbortController());
    const said = make("p", { class: "said" });
    this.answer.replaceChildren(make("p", { class: "asked" }, question), said);
    this.page.hidden = true;
    try {
      for await (const piece of stream("api/documents/ask", { question, model: this.model() }, signal)) {
        if (piece.done) this.cite(said, piece);
        else said.append(piece.text);
      }
    } catch (error) {
      if (error.name !== "AbortError") said.replaceChildren(make("span", { class: "problem" }, error.message));
    }
  }

  /** The whole answer, each [n] that is a citation as a button. */
  cite(said, { text, citations }) {
    const known = new Map(citations.map((each) => [each.number, each]));
    const button = (citation, label) => make("button", { type: "button", class: "cite", "aria-label": `Citation ${label}: ${citation.title || citation.source}`, onclick: () => this.show(citation) }, label);
    said.replaceChildren(...text.split(/\[(\d+)\]/).map((part, place) => {
      const citation = place % 2 ? known.get(Number(part)) : null;
      return citation ? button(citation, part) : place % 2 ? `[${part}]` : part;
    }));
    if (!citations.length) return;
    this.answer.append(make("ul", { class: "sources" }, citations.map((each) => make("li", {},
      button(each, String(each.number)), make("span", {}, [each.title || each.source, each.label].filter(Boolean).join(", "))))));
  }

  /** A document with a passage of it lit, or a picture. */
  async show({ source, start = 0, end = 0 }) {
    this.shown = source;
    try {
      const { title, text, picture } = await call(`api/documents/text?${query({ source })}`);
      const lit = make("mark", {}, text.slice(start, end));
      this.page.replaceChildren(make("h3", {}, title || source));
      if (picture) {
        const url = URL.createObjectURL(await fetchBlob(`api/documents/picture?${query({ source })}`));
        this.page.append(make("img", { src: url, alt: text, onload: () => URL.revokeObjectURL(url) }));
      }
      this.page.append(make("p", { class: "paper-text" }, text.slice(0, start), end ? lit : "", text.slice(end)));
      this.page.hidden = false;
      (end && !picture ? lit : this.page).scrollIntoView({ block: "center" });
      this.page.focus({ preventScroll: true });
    } catch (error) {
      toast(error.message);
    }
  }

  /** Files that fall on the desk are documents, not pictures for the conversation behind it. */
  takeDrops() {
    for (const name of ["dragenter", "dragover", "dragleave", "drop"]) {
      this.dialog.addEventListener(name, (event) => {
        event.stopPropagation();
        event.preventDefault();
        this.dialog.classList.toggle("over", name === "dragenter" || name === "dragover");
        if (name === "drop") this.add([...event.dataTransfer.files]);
      });
    }
  }
}
