// Light, dark, or as the system has it.

import { say } from "./dom.js";
import { icon } from "./icons.js";

const KEPT = "lapilli.theme";
const THEMES = ["auto", "light", "dark"];
const DRAWINGS = { auto: "auto", light: "sun", dark: "moon" };

/** Makes `button` go through the themes. */
export function wireTheme(button) {
  let theme = document.documentElement.dataset.theme ?? "auto";
  const show = () => {
    button.replaceChildren(icon(DRAWINGS[theme]));
    const label = theme === "auto" ? "Theme: as the system" : `Theme: ${theme}`;
    button.setAttribute("aria-label", label);
    button.title = label;
    return label;
  };
  button.addEventListener("click", () => {
    theme = THEMES[(THEMES.indexOf(theme) + 1) % THEMES.length];
    if (theme === "auto") delete document.documentElement.dataset.theme;
    else document.documentElement.dataset.theme = theme;
    try {
      localStorage.setItem(KEPT, theme);
    } catch {
      // For this page only, then.
    }
    say(show());
  });
  show();
}
