// The picture with its faces drawn in: box, landmarks, label. Knows no service.

import { identity, isUnsure, ON_PICTURE, percent, probability, UNSURE_ON_PICTURE } from "./words.js";

const FONT = 'system-ui, -apple-system, "Segoe UI", Roboto, "Helvetica Neue", Arial, sans-serif';

export class Picture {
  #canvas;
  #shown = null; // {source, width, height, faces, chosen, threshold}
  #scale = 1; // CSS pixels per pixel of the picture

  /** onChoose(identity) is called for a face that is clicked on. */
  constructor(canvas, onChoose) {
    this.#canvas = canvas;
    new ResizeObserver(() => this.#draw()).observe(canvas.parentElement);
    canvas.addEventListener("click", (event) => {
      const found = this.#at(event);
      if (found !== null) onChoose(found);
    });
    canvas.addEventListener("pointermove", (event) => {
      canvas.classList.toggle("pointing", this.#at(event) !== null);
    });
  }

  /**
   * Show a picture.
   * shown: {source: what a canvas draws, or null; width, height: of the picture that the boxes are of;
   * faces; chosen: identity of the face that is shown in full; threshold}.
   */
  show(shown) {
    this.#shown = shown;
    this.#canvas.hidden = false;
    const stage = this.#canvas.parentElement;
    stage.classList.add("filled");
    stage.style.setProperty("--aspect", shown.width / shown.height);
    this.#draw();
  }

  hide() {
    this.#shown = null;
    this.#canvas.hidden = true;
    this.#canvas.parentElement.classList.remove("filled");
  }

  #draw() {
    if (this.#shown === null) return;
    const { source, width, height, faces, chosen, threshold } = this.#shown;
    const stage = this.#canvas.parentElement;
    this.#scale = Math.min(stage.clientWidth / width, stage.clientHeight / height);
    const [across, down] = [Math.max(1, Math.round(this.#scale * width)), Math.max(1, Math.round(this.#scale * height))];
    const dense = window.devicePixelRatio || 1;
    resize(this.#canvas, across, down, dense);
    const context = this.#canvas.getContext("2d");
    context.setTransform(dense, 0, 0, dense, 0, 0);
    context.fillStyle = "#ffffff"; // under what is transparent, as the service lays it
    if (source === null) context.fillStyle = "#2a313a";
    context.fillRect(0, 0, across, down);
    if (source !== null) context.drawImage(source, 0, 0, across, down);
    this.#drawFaces(context, faces, chosen, threshold, [across, down]);
  }

  #drawFaces(context, faces, chosen, threshold, size) {
    const drawn = faces.map((face, index) => ({
      face,
      chosen: identity(face, index) === chosen,
      box: this.#box(face, size),
      unsure: isUnsure(face, threshold),
    }));
    drawn.sort((one, other) => one.chosen - other.chosen); // the chosen one lies on top
    const alone = drawn.length === 1;
    for (const each of drawn) drawBox(context, each, alone, this.#scale);
    const plates = [];
    for (const each of drawn.reverse()) drawLabel(context, each, plates, size);
  }

  #box(face, [across, down]) {
    if (face.box === null) return [0, 0, across, down];
    return face.box.map((value) => value * this.#scale);
  }

  /** The identity of the smallest face under a pointer; null: none. */
  #at(event) {
    const bounds = this.#canvas.getBoundingClientRect();
    const [x, y] = [(event.clientX - bounds.left) / this.#scale, (event.clientY - bounds.top) / this.#scale];
    const under = (this.#shown?.faces ?? [])
      .map((face, index) => ({ box: face.box, name: identity(face, index) }))
      .filter(({ box }) => box && x >= box[0] && y >= box[1] && x <= box[0] + box[2] && y <= box[1] + box[3])
      .sort((one, other) => one.box[2] * one.box[3] - other.box[2] * other.box[3]);
    return under.length ? under[0].name : null;
  }
}

function resize(canvas, across, down, dense) {
  const [width, height] = [Math.round(across * dense), Math.round(down * dense)];
  if (canvas.width !== width) canvas.width = width;
  if (canvas.height !== height) canvas.height = height;
  canvas.style.width = `${across}px`;
  canvas.style.height = `${down}px`;
}

const colourOf = ({ face, unsure }) => (unsure ? UNSURE_ON_PICTURE : ON_PICTURE[face.label] ?? "#ffffff");

function drawBox(context, drawn, alone, scale) {
  const [x, y, width, height] = drawn.box;
  const thick = drawn.chosen || alone ? 4 : 2;
  context.save();
  context.lineJoin = "round";
  for (const [colour, line] of [["rgb(0 0 0 / 0.6)", thick + 2], [colourOf(drawn), thick]]) {
    context.setLineDash(drawn.unsure && line === thick ? [9, 6] : []);
    context.strokeStyle = colour;
    context.lineWidth = line;
    context.strokeRect(x, y, width, height);
  }
  if (drawn.face.landmarks && width >= 60) {
    for (const [left, top] of drawn.face.landmarks) {
      dot(context, left * scale, top * scale, 3.2, "#141414");
      dot(context, left * scale, top * scale, 2, "#ffffff");
    }
  }
  context.restore();
}

function dot(context, x, y, radius, colour) {
  context.fillStyle = colour;
  context.beginPath();
  context.arc(x, y, radius, 0, 2 * Math.PI);
  context.fill();
}

/** A plate with the label above the box, else below or inside; left out where a plate lies already. */
function drawLabel(context, drawn, plates, [across, down]) {
  const size = drawn.chosen && across >= 480 ? 16 : 13;
  context.font = `600 ${size}px ${FONT}`;
  const named = `${drawn.face.label} ${percent(probability(drawn.face), 0)}`;
  const text = drawn.unsure ? "not sure enough" : named;
  const [width, height] = [Math.ceil(context.measureText(text).width) + size + 8, Math.round(1.7 * size)];
  const [left, top, , tall] = drawn.box;
  const x = Math.max(0, Math.min(left - 2, across - width));
  const places = [top - height - 3, top + tall + 3, top + 3].filter((y) => y >= 0 && y + height <= down);
  const free = (y) => plates.every(([px, py, pw, ph]) => x + width <= px || px + pw <= x || y + height <= py || py + ph <= y);
  const y = places.find(free) ?? (drawn.chosen ? Math.max(0, top + 3) : null);
  if (y === null) return;
  plates.push([x, y, width, height]);
  context.fillStyle = "rgb(20 20 20 / 0.84)";
  context.fillRect(x, y, width, height);
  context.fillStyle = colourOf(drawn);
  context.fillRect(x, y, 5, height);
  context.fillStyle = "#ffffff";
  context.textBaseline = "middle";
  context.fillText(text, x + 5 + 0.5 * size, y + height / 2 + 1);
}
