"use strict";
// Words of strangers go into the page as text nodes alone; nothing here writes markup.
const read = (id) => JSON.parse(document.getElementById(id).textContent);
const { trials, types, size } = read("index");
const form = document.querySelector("form");
const list = document.querySelector("main");
const PAGE = 20;
const kept = new Map();
let found = [];
let page = 0;

const make = (tag, className, ...inside) => {
  const node = document.createElement(tag);
  if (className) node.className = className;
  node.append(...inside);
  return node;
};
const trialAt = (place) => {
  const part = Math.floor(place / size);
  if (!kept.has(part)) {
    if (kept.size > 8) kept.delete(kept.keys().next().value);
    kept.set(part, read(`part-${part}`));
  }
  return kept.get(part)[place % size];
};
const typeClass = (type) => (types.includes(type) ? `t${types.indexOf(type)}` : "untyped");

const lit = (pieces, trial) => pieces.map(([text, which]) => {
  if (which < 0) return text;
  const one = trial.found[which];
  const number = make("sup", "", String(which + 1));
  number.setAttribute("aria-label", `intervention ${which + 1}`);
  const mark = make("mark", typeClass(one.type), text, number);
  mark.title = `${which + 1}. ${one.name} (${one.type})`;
  return mark;
});
const field = ([name, pieces], trial) =>
  make("div", "field", make("dt", "", name), make("dd", "", ...lit(pieces, trial)));

const intervention = (one, which) => {
  const item = make("li", typeClass(one.type));
  item.append(make("b", "", `${which + 1}. ${one.name}`), " ", make("span", "type", one.type));
  const slots = make("div", "slots");
  for (const [name, value] of one.slots) slots.append(make("div", "", make("span", "", `${name} `), value));
  if (one.slots.length) item.append(slots);
  if (one.told) item.append(make("div", "told", one.told));
  return item;
};

const show = (place) => {
  const trial = trialAt(place);
  const head = make("div", "head", make("strong", "", trial.ids), make("span", "quiet", trial.register),
    make("span", `status ${trial.status}`, trial.status));
  const article = make("article", "", head, make("h2", "", ...lit(trial.title, trial)));
  if (trial.told) article.append(make("p", "told", trial.told));
  if (trial.found.length) article.append(make("ol", "", ...trial.found.map(intervention)));
  const lines = make("dl", "", ...trial.lit.map((each) => field(each, trial)));
  article.append(lines);
  if (trial.rest.length) {
    const more = make("details", "", make("summary", "", "the rest of its text"));
    more.addEventListener("toggle", () => {
      if (more.open && more.childElementCount === 1) {
        more.append(make("dl", "", ...trial.rest.map((each) => field(each, trial))));
      }
    });
    article.append(more);
  }
  return article;
};

const turnTo = (number) => {
  const pages = Math.max(1, Math.ceil(found.length / PAGE));
  page = Math.min(Math.max(number, 0), pages - 1);
  const first = page * PAGE;
  const places = found.slice(first, first + PAGE);
  list.replaceChildren(...(places.length ? places.map(show) : [make("p", "quiet", "No trial is like that.")]));
  form.querySelector("output").value = found.length
    ? `${first + 1}–${first + places.length} of ${found.length}` : `0 of ${trials.length}`;
  form.querySelector("[name=back]").disabled = page === 0;
  form.querySelector("[name=on]").disabled = page === pages - 1;
};
const filter = () => {
  const { register, status, type, words } = Object.fromEntries(new FormData(form));
  const wanted = words.toLowerCase().split(/\s+/).filter(Boolean);
  found = [];
  trials.forEach((each, place) => {
    if (register && each.r !== register) return;
    if (status && each.s !== status) return;
    if (type && !each.t.includes(type)) return;
    if (wanted.every((word) => each.w.includes(word))) found.push(place);
  });
  turnTo(0);
};
let waiting = 0;
form.addEventListener("input", (event) => {
  clearTimeout(waiting);
  waiting = setTimeout(filter, event.target.name === "words" ? 120 : 0);
});
form.addEventListener("submit", (event) => event.preventDefault());
form.addEventListener("click", (event) => {
  if (event.target.name !== "back" && event.target.name !== "on") return;
  turnTo(page + (event.target.name === "on" ? 1 : -1));
  form.scrollIntoView({ block: "start" });
});
filter();
