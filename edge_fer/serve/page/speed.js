// Frame rate and where the time goes, stage by stage. Shows medians of the last answers, a few times a second.

const STAGES = [
  ["decode", "decode"],
  ["detect", "detect"],
  ["track", "track-stage"],
  ["preprocess", "preprocess"],
  ["recognise", "recognise"],
];
const REMEMBERED = 15;
const RATE_OVER_MS = 2000;
const EVERY_MS = 250;

export class Speed {
  #parts;
  #answers = []; // latency_ms of the last ones, with `trip`
  #times = []; // when the last ones came
  #drawn = 0;

  /** parts: {box, rate, trip, bar, figures}. */
  constructor(parts) {
    this.#parts = parts;
  }

  clear() {
    this.#answers = [];
    this.#times = [];
    this.#drawn = 0;
    this.#parts.box.hidden = true;
  }

  /** An answer came; live: frames follow each other, so that they have a rate. */
  add(latency, tripMs, live) {
    const now = performance.now();
    this.#answers = [...this.#answers, { ...latency, trip: tripMs }].slice(-REMEMBERED);
    this.#times = [...this.#times, now].filter((time) => now - time <= RATE_OVER_MS);
    if (now - this.#drawn < EVERY_MS) return;
    this.#drawn = now;
    this.#draw(live);
  }

  /** Frames per second over the last two seconds; null: not known. */
  get rate() {
    const times = this.#times;
    return times.length < 3 ? null : (1000 * (times.length - 1)) / (times.at(-1) - times[0]);
  }

  #draw(live) {
    const { box, rate, trip, bar, figures } = this.#parts;
    box.hidden = false;
    rate.textContent = !live ? "This photo" : this.rate === null ? "–" : `${this.rate.toFixed(1)} frames/s`;
    const [whole, total] = [this.#median("trip"), this.#median("total")];
    trip.textContent = `${milliseconds(whole)} round trip, ${milliseconds(total)} on the server`;
    const stages = STAGES.map(([name, colour]) => [name, colour, this.#median(name)]).filter(([, , value]) => value !== null);
    const rest = Math.max(0, whole - stages.reduce((sum, [, , value]) => sum + value, 0));
    stages.push(["network and queue", "rest", rest]);
    bar.replaceChildren(...stages.map(([, colour, value]) => segment(colour, value)));
    figures.replaceChildren(...stages.map(([name, colour, value]) => figure(name, colour, value)));
  }

  #median(stage) {
    const values = this.#answers.map((each) => each[stage]).filter((value) => value !== null && value !== undefined);
    return values.length ? values.sort((one, other) => one - other)[values.length >> 1] : null;
  }
}

const milliseconds = (value) => (value === null ? "–" : `${value < 10 ? value.toFixed(1) : Math.round(value)}\u202fms`);

function segment(colour, value) {
  const element = document.createElement("i");
  element.style.flex = `${value} 0 0`;
  element.style.background = `var(--${colour})`;
  return element;
}

function figure(name, colour, value) {
  const [row, term, said] = ["div", "dt", "dd"].map((tag) => document.createElement(tag));
  term.style.setProperty("--stage-colour", `var(--${colour})`);
  term.textContent = name;
  said.textContent = milliseconds(value);
  row.append(term, said);
  return row;
}
