// One line over the picture for what went wrong and what to do, and what screen readers are told of answers.

const QUIET_MS = 4000; // between two announcements of a live picture

export class Notices {
  #parts;
  #act = null;

  /** parts: {box, text, action, close}. */
  constructor(parts) {
    this.#parts = parts;
    parts.action.addEventListener("click", () => this.#act?.());
    parts.close.addEventListener("click", () => this.hide());
  }

  /** kind: "error", "warning" or "plain"; action: [what its button says, what it does]. */
  show(kind, text, action = null) {
    const { box, text: line, action: button } = this.#parts;
    box.className = `notice ${kind}`;
    box.setAttribute("role", kind === "error" ? "alert" : "status");
    box.hidden = false;
    if (line.textContent !== text) line.textContent = text;
    button.hidden = action === null;
    this.#act = action?.[1] ?? null;
    if (action !== null) button.textContent = action[0];
  }

  hide() {
    this.#parts.box.hidden = true;
    this.#parts.text.textContent = "";
  }
}

export class Announcer {
  #line;
  #said = "";
  #at = -QUIET_MS;

  constructor(line) {
    this.#line = line;
  }

  /** Say something new; key: what has to change for it to be new; now: however short ago the last one was. */
  say(text, key = text, now = false) {
    const time = performance.now();
    if (key === this.#said || (!now && time - this.#at < QUIET_MS)) return;
    this.#said = key;
    this.#at = time;
    this.#line.textContent = text;
  }
}
