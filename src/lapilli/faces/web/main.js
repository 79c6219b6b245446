// Puts the page together.

import { Away, whenKeyIsNeeded } from "./api.js";
import { Chat } from "./chat.js";
import { Composer } from "./composer.js";
import * as tree from "./conversation.js";
import { Desk } from "./documents.js";
import { find, make, say, setIcon, toast } from "./dom.js";
import { wireDrop } from "./drop.js";
import * as history from "./history.js";
import { icon } from "./icons.js";
import { ModelPicker, chatModels, isBlind, model, refresh, seeing, sees, short } from "./models.js";
import { askForKey, keep, openSettings, restore, settings } from "./settings.js";
import { Sidebar } from "./sidebar.js";
import { wireTheme } from "./theme.js";
import { Thread, notice } from "./thread.js";
import { download, fileName, pack, unpack } from "./transfer.js";

const EXAMPLES = ["What is in this picture?", "How many things are there?", "What does it say?"];
const RETRY = [2, 4, 8, 15, 30]; // seconds
const DRAFT = "lapilli.draft";
const narrow = matchMedia("(max-width: 860px)");

restore();
whenKeyIsNeeded(askForKey);

const chat = new Chat();
const picker = new ModelPicker(find("models"), useModel);
const heat = make("button", { type: "button", class: "text-button", "aria-pressed": "false", title: "Ask for a heat map over the picture", onclick: () => {
  keep({ heatmap: !settings.heatmap });
  showHeat();
} }, icon("heat"), make("span", {}, "Where it looks"));
const composer = new Composer({
  id: "words", label: "Message", placeholder: "Ask, or drop a picture", check, tools: [heat], stop: () => chat.stop(),
  send: async (text, pictures, how) => {
    thread.goToEnd();
    // Whoever is quick may be ahead of the list of models, and so of the warning.
    if (!listed) {
      await connect();
      if (!how.blind && check(pictures)) return composer.restore(text, pictures);
    }
    return chat.ask(text, pictures, how).catch((error) => {
      toast(`It could not be kept, so it was not sent: ${error.message}`);
      composer.restore(text, pictures);
    });
  },
});
const thread = new Thread(find("thread"), find("scroll"), find("to-end"), {
  check,
  siblings: (turn) => tree.siblings(chat.conversation, turn),
  choose: (turn) => chat.choose(turn),
  again: (turn) => unlessAnswering(() => {
    const found = check([]);
    if (!found) return chat.again(turn);
    const [choice] = found.choices;
    return toast(found.text, choice && { label: choice.label, act: () => { choice.act(); chat.again(turn); } });
  }),
  edit: (turn, text, pictures, how) => unlessAnswering(() => chat.ask(text, pictures, { ...how, instead: turn })),
});
const sidebar = new Sidebar({ list: find("list"), search: find("search") }, {
  open: async (id) => {
    await chat.open(id);
    if (narrow.matches) showAside(false);
  },
  changed: async (id, change) => {
    if (change.deleted) return chat.conversation.id === id && chat.start();
    const kept = chat.conversation.id === id ? chat.conversation : await history.conversation(id);
    Object.assign(kept, { title: change.title, named: true });
    await chat.save(kept);
    showTitle();
  },
});

function unlessAnswering(act) {
  if (chat.answering) return toast("An answer is under way: Esc stops it.");
  thread.goToEnd();
  return act();
}

function useModel(name) {
  chat.conversation.model = name;
  keep({ model: name });
  picker.show(name);
  showHeat();
  composer.refresh();
  if (Object.keys(chat.conversation.turns).length) chat.save(chat.conversation);
}

/** Pictures are not sent to a model that cannot see them without the reader knowing. */
function check(pictures) {
  const name = chat.conversation.model;
  if (!isBlind(name)) return null;
  const shown = tree.path(chat.conversation).some((turn) => turn.pictures.length && !turn.blind);
  if (!pictures.length && !shown) return null;
  const able = seeing();
  return {
    text: `${short(name)} cannot see pictures.`,
    choices: able ? [{ label: `Ask ${short(able.name)} instead`, act: () => useModel(able.name) }] : [],
  };
}

function showHeat() {
  heat.setAttribute("aria-pressed", String(settings.heatmap));
  heat.hidden = !sees(chat.conversation.model);
}

function showTitle() {
  const { title } = chat.conversation;
  document.title = title ? `${title} · lapilli` : "lapilli";
}

function showTurns() {
  const turns = tree.path(chat.conversation);
  find("welcome").hidden = turns.length > 0;
  thread.show(turns);
  composer.setAnswering(chat.answering !== null);
  composer.refresh();
  showTitle();
  // The address names the conversation, so that a reload finds it again.
  const address = turns.length ? `#${chat.conversation.id}` : location.pathname + location.search;
  window.history.replaceState(null, "", address);
}

chat.addEventListener("opened", () => {
  const { conversation } = chat;
  thread.clear();
  showModel();
  showTurns();
  sidebar.show(conversation.id);
  if (!narrow.matches) composer.focus();
});
chat.addEventListener("changed", ({ detail: turn }) => {
  showTurns();
  if (turn) thread.speak(turn);
  else if (chat.answering) say("Answering");
});
chat.addEventListener("grew", ({ detail: turn }) => thread.grow(turn));
chat.addEventListener("listed", () => sidebar.show(chat.conversation.id));
chat.addEventListener("away", () => away(0));
chat.addEventListener("unkept", ({ detail }) => toast(`This browser has no room for the conversation: ${detail.message}`));

/** Says that the server is away, and looks for it again, less and less often. */
let waiting = null;
let listed = false;
function away(tries) {
  clearTimeout(waiting);
  const seconds = RETRY[Math.min(tries, RETRY.length - 1)];
  find("notices").replaceChildren(notice("The server is away. What you have is safe here; this page looks for it again by itself.", "Try now", () => connect(tries)));
  waiting = setTimeout(() => connect(tries + 1), seconds * 1000);
}

async function connect(tries = 0) {
  clearTimeout(waiting);
  try {
    await refresh();
  } catch (error) {
    if (error instanceof Away) return away(tries);
    return find("notices").replaceChildren(notice(error.message, "Try again", () => connect()));
  }
  listed = true;
  find("notices").replaceChildren();
  showModel();
  composer.refresh();
}

/** A conversation keeps its model, even one that is gone; a new one takes the last used, or one that sees. */
function showModel() {
  const { conversation } = chat;
  if (!conversation.model || tree.path(conversation).length === 0) {
    conversation.model = (model(conversation.model) ?? model(settings.model) ?? seeing() ?? chatModels()[0])?.name ?? settings.model;
  }
  picker.show(conversation.model);
  showHeat();
}

function showAside(shown) {
  document.body.classList.toggle("aside", shown);
  find("veil").hidden = !(shown && narrow.matches);
  find("history").inert = !shown;
  document.querySelector("main").inert = shown && narrow.matches;
  find("history-open").setAttribute("aria-expanded", String(shown));
  if (!narrow.matches) keep({ aside: shown });
}

function wireAside() {
  setIcon(find("history-open"), "panel");
  setIcon(find("history-close"), "panel");
  find("new").prepend(icon("new"));
  find("search").before(icon("search"));
  find("history-open").onclick = () => { showAside(true); find("history-close").focus(); };
  find("history-close").onclick = () => { showAside(false); find("history-open").focus(); };
  find("veil").onclick = () => showAside(false);
  find("new").onclick = startNew;
  narrow.onchange = () => showAside(!narrow.matches && settings.aside);
  showAside(!narrow.matches && settings.aside);
  find("export").onclick = async () => {
    const all = await history.conversations();
    download(fileName(all.length === 1 ? [] : all), await pack(all));
  };
  find("import").onclick = () => find("import-file").click();
  find("import-file").onchange = async ({ target }) => {
    const [file] = target.files;
    target.value = "";
    if (!file) return;
    try {
      const count = await unpack(await file.text());
      toast(count === 1 ? "1 conversation taken in." : `${count} conversations taken in.`);
    } catch (error) {
      toast(error.message);
    }
    sidebar.draw();
  };
}

function startNew() {
  chat.start();
  if (narrow.matches) showAside(false);
  composer.focus();
}

function wireKeys() {
  addEventListener("keydown", (event) => {
    const command = event.ctrlKey || event.metaKey;
    if (event.key === "Escape" && !document.querySelector("dialog[open], [popover]:popover-open")) {
      if (narrow.matches && document.body.classList.contains("aside")) find("history-close").click();
      else chat.stop();
    } else if (command && event.key.toLowerCase() === "k") {
      event.preventDefault();
      showAside(true);
      find("search").focus();
    } else if (command && event.shiftKey && event.key.toLowerCase() === "o") {
      event.preventDefault();
      startNew();
    }
  });
  composer.words.addEventListener("keydown", (event) => {
    if (event.key !== "ArrowUp" || composer.words.value || chat.answering) return;
    const last = tree.path(chat.conversation).findLast((turn) => turn.role === "user");
    if (!last) return;
    event.preventDefault();
    thread.edit(last);
  });
}

function wireDraft() {
  try {
    composer.words.value = sessionStorage.getItem(DRAFT) ?? "";
    composer.words.addEventListener("input", () => sessionStorage.setItem(DRAFT, composer.words.value));
    composer.element.addEventListener("submit", () => sessionStorage.setItem(DRAFT, composer.words.value));
  } catch {
    // No drafts in a browser that keeps nothing.
  }
}

async function start() {
  find("composer").append(composer.element);
  find("examples").append(...EXAMPLES.map((text) => make("button", { type: "button", onclick: () => { composer.words.value = text; composer.focus(); } }, text)));
  setIcon(find("settings-open"), "gear");
  find("settings-open").onclick = () => openSettings(chat.conversation, () => { if (Object.keys(chat.conversation.turns).length) chat.saveSoon(chat.conversation); });
  const desk = new Desk(() => chat.conversation.model);
  find("documents-open").prepend(icon("document"));
  find("documents-open").onclick = () => desk.open();
  wireTheme(find("theme"));
  wireAside();
  wireDrop(find("drop"), (files) => composer.add(files));
  wireKeys();
  wireDraft();
  addEventListener("pagehide", () => chat.saveAll());
  if (!(await history.open())) toast("This browser keeps nothing: conversations go when the page does.");
  history.whenElsewhere((id) => {
    sidebar.draw();
    if (id === chat.conversation.id && !chat.answering) chat.open(id, { elsewhere: true });
  });
  const asked = location.hash.slice(1);
  if (!asked || !(await chat.open(asked))) chat.start();
  await connect();
}

start();
