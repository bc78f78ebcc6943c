// The row of faces, when there are several: one radio button each, so that the keyboard works as it always does.

import { identity, isUnsure, percent, probability } from "./words.js";

const SIDE = 84; // pixels of a small picture

export class People {
  #row;
  #onChoose;
  #cards = new Map();

  constructor(row, onChoose) {
    this.#row = row;
    this.#onChoose = onChoose;
  }

  /** shown: as Picture.show takes it. Cards of people who stay are kept, and with them the focus. */
  show({ source, width, faces, chosen, threshold }) {
    this.#row.hidden = faces.length < 2;
    const named = faces.map((face, index) => [identity(face, index), face]);
    named.sort(([, one], [, other]) => order(one) - order(other));
    for (const [name, card] of this.#cards) {
      if (!named.some(([each]) => each === name)) {
        card.element.remove();
        this.#cards.delete(name);
      }
    }
    named.forEach(([name, face], index) => {
      const card = this.#cards.get(name) ?? this.#add(name);
      if (this.#row.children[index + 1] !== card.element) this.#row.insertBefore(card.element, this.#row.children[index + 1] ?? null);
      const unsure = isUnsure(face, threshold);
      card.element.classList.toggle("unsure", unsure);
      if (name === chosen && !card.input.checked) {
        card.input.checked = true;
        card.element.scrollIntoView({ block: "nearest", inline: "nearest" });
      }
      card.title.textContent = unsure ? "not sure" : face.label;
      card.note.textContent = unsure ? `reliability ${face.reliability.toFixed(2)}` : percent(probability(face), 0);
      if (source !== null) drawFace(card.canvas, source, face.box, source.width / width);
    });
  }

  /** Choose by position in the row, from 0. */
  chooseAt(index) {
    const names = [...this.#row.querySelectorAll("input")].map((input) => input.value);
    if (index < names.length) this.#onChoose(names[index]);
  }

  #add(name) {
    const [element, input, canvas, text, title, note] = ["label", "input", "canvas", "span", "strong", "span"].map((tag) =>
      document.createElement(tag),
    );
    element.className = "person";
    Object.assign(input, { type: "radio", name: "person", value: name });
    input.addEventListener("change", () => this.#onChoose(name));
    canvas.width = canvas.height = SIDE;
    text.append(title, note);
    element.append(input, canvas, text);
    const card = { element, input, canvas, title, note };
    this.#cards.set(name, card);
    return card;
  }
}

/** In a picture from the left; people who are followed keep their place. */
const order = (face) => face.track ?? face.box?.[0] ?? 0;

function drawFace(canvas, source, box, scale) {
  if (box === null) return;
  const [x, y, width, height] = box.map((value) => value * scale);
  const side = Math.max(width, height);
  const context = canvas.getContext("2d");
  context.clearRect(0, 0, SIDE, SIDE);
  context.drawImage(source, x + (width - side) / 2, y + (height - side) / 2, side, side, 0, 0, SIDE, SIDE);
}
