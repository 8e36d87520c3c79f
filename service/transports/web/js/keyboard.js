/** Keys to commands. Keys typed into a field, or with Ctrl or Alt held, are the browser's own, but for undo and redo. */

const KEYS = {
  n: "new",
  a: "everything",
  x: "toggle",
  m: "move",
  h: "hide",
  p: "preview",
  e: "rename",
  f: "fit",
  0: "fit",
  "+": "zoomIn",
  "=": "zoomIn",
  "-": "zoomOut",
  ".": "next",
  ",": "previous",
  z: "undo",
  y: "redo",
  Delete: "remove",
  Backspace: "remove",
  Escape: "escape",
  "?": "help",
};
const ARROWS = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };

/**
 * @param {{stage: HTMLElement, run: (command: string, argument?: unknown) => void}} parts
 *   commands: those above, "choose" with a place from 0, "step" with {dx, dy, far}, "press" with a label, "hold" / "release"
 */
export function listenToKeys({ stage, run }) {
  document.addEventListener("keydown", (event) => {
    if (event.defaultPrevented || isTyping(event.target) || document.querySelector("dialog[open]")) return;
    const command = commandOf(event, event.target === stage);
    if (!command) return;
    event.preventDefault();
    run(...command);
  });
  document.addEventListener("keyup", (event) => {
    if (event.key === " ") run("release");
  });
}

function commandOf(event, onStage) {
  const key = event.key.length === 1 ? event.key.toLowerCase() : event.key;
  if (event.ctrlKey || event.metaKey) {
    if (key === "z") return [event.shiftKey ? "redo" : "undo"];
    return key === "y" ? ["redo"] : null;
  }
  if (event.altKey) return null;
  if (key === "z" && event.shiftKey) return ["redo"];
  if (/^[1-5]$/.test(key)) return ["choose", Number(key) - 1];
  if (onStage) {
    if (key in ARROWS) return ["step", { dx: ARROWS[key][0], dy: ARROWS[key][1], far: event.shiftKey }];
    if (key === "Enter") return ["press", event.shiftKey ? 0 : 1];
  }
  if (key === " " && !event.target.closest("button, summary, label")) return ["hold"];
  return Object.hasOwn(KEYS, key) ? [KEYS[key]] : null;
}

function isTyping(target) {
  return target instanceof HTMLElement && target.matches("input:not([type=checkbox]):not([type=radio]), textarea, select");
}
