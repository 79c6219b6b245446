// The drawings on buttons: lines on a field of 24 by 24, and what is filled.

const SVG = "http://www.w3.org/2000/svg";

const circle = (x, y, r) => `M${x - r} ${y}a${r} ${r} 0 1 0 ${2 * r} 0a${r} ${r} 0 1 0 ${-2 * r} 0`;
const box = (x, y, side, r) => `M${x + r} ${y}h${side - 2 * r}q${r} 0 ${r} ${r}v${side - 2 * r}q0 ${r} ${-r} ${r}h${2 * r - side}q${-r} 0 ${-r} ${-r}v${2 * r - side}q0 ${-r} ${r} ${-r}z`;
const FRAME = "M6.5 4.5h11a3 3 0 0 1 3 3v9a3 3 0 0 1-3 3h-11a3 3 0 0 1-3-3v-9a3 3 0 0 1 3-3z";

const DRAWINGS = {
  again: ["M19.5 12a7.5 7.5 0 1 1-2.3-5.4M19.5 3.8v4h-4"],
  auto: [circle(12, 12, 8.2), "M12 3.8a8.2 8.2 0 0 1 0 16.4z"],
  check: ["m5 12.5 4.5 4.5L19 7.5"],
  close: ["m6.5 6.5 11 11M17.5 6.5l-11 11"],
  copy: [`${box(8.5, 8.5, 11, 2.5)}M15.5 8.5V7A2.5 2.5 0 0 0 13 4.5H7A2.5 2.5 0 0 0 4.5 7v6A2.5 2.5 0 0 0 7 15.5h1.5`],
  document: ["M7 3.5h6.5L18.5 8.5v9a3 3 0 0 1-3 3H7a2.5 2.5 0 0 1-2.5-2.5V6A2.5 2.5 0 0 1 7 3.5zM13.5 3.8V8.5h4.700M8.5 13h7M8.5 16.5h5"],
  down: ["m6.5 9.5 5.5 5.5 5.5-5.5"],
  edit: ["m5 16-.8 3.8L8 19 18.8 8.2a2.1 2.1 0 0 0-3-3z"],
  eye: [`M2.8 12S6 5.8 12 5.8 21.2 12 21.2 12 18 18.2 12 18.2 2.8 12 2.8 12z${circle(12, 12, 2.7)}`],
  gear: [`M4 8h9M19 8h1M4 16h1M11 16h9${circle(16, 8, 2.4)}${circle(8, 16, 2.4)}`],
  heat: ["M12 3.5c.6 3.4 4.7 5.2 4.7 10a4.7 4.7 0 0 1-9.4 0c0-1.9.9-3 1.8-4.2.4 1.2 1 1.8 1.7 2.1-.3-2.9.1-5.7 1.2-7.9zM6 20.5h12"],
  left: ["M14.5 6.5 9 12l5.5 5.5"],
  moon: ["M19.8 14.2A8.2 8.2 0 0 1 9.8 4.2a8.2 8.2 0 1 0 10 10z"],
  more: ["", `${circle(6, 12, 1.5)}${circle(12, 12, 1.5)}${circle(18, 12, 1.5)}`],
  new: ["M12 5v14M5 12h14"],
  panel: [`${FRAME}M9.5 4.5v15`],
  picture: [`${FRAME}${circle(9, 10, 1.6)}M4 17.5l4.7-4.2a1.5 1.5 0 0 1 2 0l2.3 2.1 2.6-2.6a1.5 1.5 0 0 1 2.1 0l2.8 2.7`],
  right: ["M9.5 6.5 15 12l-5.5 5.5"],
  save: ["M12 4.5v11M7.5 11.5 12 16l4.5-4.5M5 19.5h14"],
  search: [`${circle(10.5, 10.5, 6)}M15 15l4.5 4.5`],
  send: ["M12 19V5.5M6 11l6-6 6 6"],
  stop: ["", box(7, 7, 10, 2)],
  sun: [`${circle(12, 12, 4)}M12 2.8v2M12 19.2v2M2.8 12h2M19.2 12h2M5.5 5.5l1.4 1.4M17.1 17.1l1.4 1.4M5.5 18.5l1.4-1.4M17.1 6.9l1.4-1.4`],
  trash: ["M4.5 7h15M9.5 7V4.8h5V7M6.5 7l.8 12.2h9.4L17.5 7"],
};

/** A drawing, hidden from screen readers: its button says what it does. */
export function icon(name) {
  const [lines, filled] = DRAWINGS[name];
  const drawing = shape("svg", { class: "icon", "aria-hidden": "true", viewBox: "0 0 24 24" });
  if (lines) drawing.append(shape("path", { class: "lines", d: lines }));
  if (filled) drawing.append(shape("path", { class: "filled", d: filled }));
  return drawing;
}

function shape(tag, attributes) {
  const element = document.createElementNS(SVG, tag);
  for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
  return element;
}
