/** Light or dark: as the system has it, until somebody chooses otherwise. */

const STORE = "ovsam.theme";

/** @param {HTMLButtonElement} button changes the theme */
export function followTheme(button) {
  const system = matchMedia("(prefers-color-scheme: dark)");
  const isDark = () => (document.documentElement.dataset.theme ?? (system.matches ? "dark" : "light")) === "dark";
  const label = () => button.setAttribute("aria-label", isDark() ? "Use light colours" : "Use dark colours");
  const chosen = recall();
  if (chosen) document.documentElement.dataset.theme = chosen;
  button.addEventListener("click", () => {
    const theme = isDark() ? "light" : "dark";
    document.documentElement.dataset.theme = theme;
    keep(theme);
    label();
  });
  system.addEventListener("change", label);
  label();
}

function recall() {
  try {
    return localStorage.getItem(STORE);
  } catch {
    return null; // storage may be forbidden; the choice then lasts as long as the page
  }
}

function keep(theme) {
  try {
    localStorage.setItem(STORE, theme);
  } catch {
    // as above
  }
}
