// The answer for one face: what it looks like, what balancing changed, both distributions as paired bars.

import { balancing, isUnsure, moved, percent, probability } from "./words.js";

export class Panel {
  #verdict;
  #bars;
  #rows = new Map();

  constructor(verdict, bars) {
    this.#verdict = verdict;
    this.#bars = bars;
  }

  /** Show a face; whose: "this", or "the chosen" where there are several. */
  show(face, threshold, whose) {
    const unsure = isUnsure(face, threshold);
    const [name, headline, change] = this.#verdict.children;
    this.#verdict.classList.toggle("unsure", unsure);
    this.#verdict.style.setProperty("--label", `var(--${face.label}, var(--ink))`);
    name.textContent = unsure ? `No answer for ${whose} face` : `${whose === "this" ? "This" : "The chosen"} face looks like`;
    const share = document.createElement("span");
    share.className = "share";
    share.textContent = unsure ? `closest: ${face.label} ${percent(probability(face), 0)}` : percent(probability(face));
    headline.replaceChildren(unsure ? "Not sure enough" : face.label, share);
    change.replaceChildren(...balancing(face).map((part) => (typeof part === "string" ? part : strong(part[0]))));
    this.#showBars(face, unsure);
  }

  #showBars(face, unsure) {
    const labels = Object.keys(face.probabilities);
    if (labels.join() !== [...this.#rows.keys()].join()) this.#lay(labels);
    this.#bars.classList.toggle("unsure", unsure);
    for (const label of labels) {
      const [before, after] = [face.primary[label], face.probabilities[label]];
      const row = this.#rows.get(label);
      row.element.classList.toggle("leading", label === face.label);
      row.first.style.width = percentOf(before);
      row.final.style.width = percentOf(after);
      row.before.textContent = percent(before);
      row.after.textContent = percent(after);
      const [text, much] = moved(before, after);
      row.moved.textContent = text;
      row.moved.classList.toggle("much", much);
    }
  }

  #lay(labels) {
    const body = this.#bars.tBodies[0];
    body.replaceChildren();
    this.#rows.clear();
    for (const label of labels) {
      const element = body.insertRow();
      const head = document.createElement("th");
      head.scope = "row";
      head.textContent = label;
      element.append(head);
      const [drawn, after, change] = ["drawn", "after", "moved"].map((name) => {
        const cell = element.insertCell();
        cell.className = name;
        return cell;
      });
      const pair = document.createElement("div");
      pair.className = "pair";
      pair.setAttribute("aria-hidden", "true");
      pair.style.setProperty("--label", `var(--${label}, var(--ink))`);
      const [first, final] = [document.createElement("i"), document.createElement("b")];
      pair.append(first, final);
      const before = document.createElement("span");
      before.className = "unseen";
      drawn.append(pair, before);
      this.#rows.set(label, { element, first, final, before, after, moved: change });
    }
  }
}

const percentOf = (share) => `${100 * Math.min(Math.max(share, 0), 1)}%`;

function strong(text) {
  const element = document.createElement("strong");
  element.textContent = text;
  return element;
}
