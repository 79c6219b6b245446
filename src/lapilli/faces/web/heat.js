// Where an answer looked: the server's sheet of heat maps, cut apart and laid over the pictures.

import * as history from "./history.js";
import { make } from "./dom.js";
import { image } from "./pictures.js";

// How the server draws a sheet: pictures one under another, scaled to this range, a gap below each, then a legend.
const SMALLEST = 512;
const LARGEST = 1280;
const GAP = 8;
const SLACK = 2;

/** Where each picture's heat map lies on the sheet; null if the sheet is not of these pictures. */
export function places(pictures, sheet) {
  let top = 0;
  const found = pictures.map((picture) => {
    const longer = Math.max(picture.width, picture.height);
    const scale = Math.min(Math.max(longer, SMALLEST), LARGEST) / longer;
    const place = { x: 0, y: top, width: Math.max(1, Math.round(picture.width * scale)), height: Math.max(1, Math.round(picture.height * scale)) };
    top += place.height + GAP;
    return place;
  });
  const width = Math.max(...found.map((place) => place.width));
  return found.length && Math.abs(width - sheet.width) <= SLACK && top <= sheet.height + GAP + SLACK ? found : null;
}

/** The pictures an answer looked at, each with its heat over it, and how strongly it shows. */
export async function heatFigure(heatId, pictureIds) {
  const [heat, ...pictures] = await Promise.all([heatId, ...pictureIds].map(history.picture));
  if (!heat) return make("p", { class: "problem" }, "The heat map is gone from this browser.");
  const sheet = await createImageBitmap(heat.blob);
  const cut = pictures.every(Boolean) ? places(pictures, sheet) : null;
  if (!cut) return make("figure", { class: "heat" }, image(heat, { alt: "Heat map of where the answer looked" }));
  const stacks = pictures.map((picture, place) => make("div", { class: "stack" },
    image(picture), overlay(sheet, cut[place], picture.name)));
  const figure = make("figure", { class: "heat" });
  const strength = make("input", { type: "range", min: "0", max: "100", value: "100", "aria-label": "How strongly the heat shows", oninput: () => {
    figure.style.setProperty("--heat", strength.value / 100);
  } });
  figure.append(make("div", { class: "stacks" }, stacks),
    make("figcaption", {}, make("span", {}, "picture"), strength, make("span", {}, "heat"),
      make("span", { class: "legend" }, "less", make("i", { class: "ramp" }), "more")));
  return figure;
}

function overlay(sheet, { x, y, width, height }, name) {
  const canvas = make("canvas", { role: "img", "aria-label": `Where the answer looked in ${name}: warm is more` });
  Object.assign(canvas, { width, height });
  canvas.getContext("2d").drawImage(sheet, x, y, width, height, 0, 0, width, height);
  return canvas;
}
