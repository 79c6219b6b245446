// Pictures let fall on the page, or pasted where no box takes them.

import { toast } from "./dom.js";
import { among } from "./pictures.js";

/** Gives pictures dropped or pasted anywhere on the page to `add`; `veil` shows while they hang over it. */
export function wireDrop(veil, add) {
  let depth = 0;
  const holds = (event) => event.dataTransfer?.types.includes("Files");
  const show = (shown) => { veil.hidden = !shown; };
  addEventListener("dragenter", (event) => { if (holds(event)) { depth += 1; show(true); } });
  addEventListener("dragleave", (event) => { if (holds(event)) { depth -= 1; show(depth > 0); } });
  addEventListener("dragover", (event) => { if (holds(event)) event.preventDefault(); });
  addEventListener("drop", (event) => {
    if (!holds(event)) return;
    event.preventDefault();
    depth = 0;
    show(false);
    const files = among(event.dataTransfer);
    if (files.length) add(files);
    else toast("That was not a picture.");
  });
  addEventListener("paste", (event) => {
    if (event.target.closest?.("textarea, input, dialog")) return;
    const files = among(event.clipboardData);
    if (files.length) add(files);
  });
}
