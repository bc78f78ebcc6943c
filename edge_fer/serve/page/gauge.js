// Reliability as a gauge, and the threshold as a handle on the same axis.

export class Gauge {
  #parts;
  #onMove;
  #start = { value: 0, origin: "" };
  #reliability = null;
  /** Below it there is no answer. Exact until the handle is moved, whose steps are hundredths. */
  threshold = 0;

  /** parts: {gauge, fill, text, slider, value, origin, reset}; onMove() is called when the threshold changed. */
  constructor(parts, onMove) {
    this.#parts = parts;
    this.#onMove = onMove;
    parts.slider.addEventListener("input", () => this.#move(Number(parts.slider.value)));
    parts.reset.addEventListener("click", () => {
      this.#move(this.#start.value);
      parts.slider.focus();
    });
  }

  /** Where the handle stands at first, and why. */
  startAt(value, origin) {
    this.#start = { value, origin };
    this.#move(value);
  }

  nudge(change) {
    this.#move(Math.min(1, Math.max(0, Math.round(100 * (this.threshold + change)) / 100)));
  }

  /** reliability: of the face that is shown; null: there is none. */
  show(reliability) {
    this.#reliability = reliability;
    const { gauge, fill, text } = this.#parts;
    const short = reliability !== null && reliability < this.threshold;
    gauge.setAttribute("aria-valuenow", (reliability ?? 0).toFixed(2));
    const said = short ? "not sure enough" : "sure enough";
    gauge.setAttribute("aria-valuetext", reliability === null ? "no face" : `${reliability.toFixed(2)}, ${said}`);
    fill.style.width = `${100 * (reliability ?? 0)}%`;
    fill.classList.toggle("short", short);
    text.textContent = reliability === null ? "" : `${reliability.toFixed(2)} · ${said}`;
    text.className = `gauge-text ${reliability === null ? "" : short ? "short" : "enough"}`;
  }

  #move(value) {
    this.threshold = value;
    const { slider, value: output, origin, reset } = this.#parts;
    const moved = value !== this.#start.value;
    slider.value = value;
    const said = value === 0 ? "0: always answers" : value.toFixed(2);
    slider.setAttribute("aria-valuetext", said);
    output.textContent = said;
    origin.textContent = moved ? "" : this.#start.origin;
    reset.hidden = !moved;
    reset.textContent = `Back to ${this.#start.value.toFixed(2)}`;
    this.show(this.#reliability);
    this.#onMove();
  }
}
