// The camera's frames to the service and back, one at a time: run, pause, single-step, reconnect.

import { Ended, Stream } from "./stream.js";

const FIRST_WAIT_MS = 500;
const LONGEST_WAIT_MS = 15000;

export class Live {
  #camera;
  #service;
  #tell;
  #stream = new Stream();
  #on = false; // the camera runs
  #wanted = 0; // frames still to send: Infinity, or as many as were stepped
  #busy = false;
  #skipWait = () => {};

  /**
   * tell: {answer(canvas, answer, roundTripMs), broken(text), waiting(why, seconds), failed(text)}.
   */
  constructor(camera, service, tell) {
    this.#camera = camera;
    this.#service = service;
    this.#tell = tell;
  }

  get on() {
    return this.#on;
  }

  get paused() {
    return this.#on && this.#wanted !== Infinity;
  }

  /** Rejects with an Error whose message a visitor can act on. */
  async start(deviceId = null) {
    await this.#camera.start(deviceId);
    this.#on = true;
    this.resume();
  }

  stop() {
    this.#on = false;
    this.#wanted = 0;
    this.#camera.stop();
    this.#stream.close();
    this.#skipWait();
  }

  pause() {
    this.#wanted = 0;
    this.#skipWait();
  }

  resume() {
    this.#wanted = Infinity;
    this.#run();
  }

  /** Pause, and send one frame more. */
  step() {
    this.#wanted = 1;
    this.#run();
  }

  /** Do not wait any longer for the next attempt. */
  retry() {
    this.#skipWait();
  }

  async #run() {
    if (this.#busy) return;
    this.#busy = true;
    let failures = 0;
    try {
      while (this.#wanted > 0) {
        try {
          await this.#one();
          failures = 0;
        } catch (error) {
          if (!(await this.#recover(error, failures))) break;
          failures += 1;
        }
      }
    } finally {
      this.#busy = false; // also after what nobody expected: the next start is a new one
    }
  }

  async #one() {
    const { canvas, blob } = await this.#camera.frame();
    if (!this.#on || this.#wanted < 1) return;
    const started = performance.now();
    const answer = await this.#stream.ask(blob, this.#service.token);
    if (!this.#on) return;
    this.#wanted -= 1;
    if (answer.error === undefined) this.#tell.answer(canvas, answer, performance.now() - started);
    else this.#tell.broken(answer.error);
  }

  /** Return whether to go on. */
  async #recover(error, failures) {
    if (!this.#on) return false;
    if (!(error instanceof Ended)) throw error;
    try {
      if (error.why === "token") await this.#service.renewToken();
      // A handshake that fails does not say why; this does, and asks for the token where one is needed.
      else if (failures === 0 && error.why === "lost") await this.#service.bundle();
    } catch (trouble) {
      if (trouble.status === 401) {
        this.#wanted = 0;
        this.#tell.failed(trouble.message);
        return false;
      }
    }
    // A stream that idled away while the visitor paused is opened again at once.
    if (failures === 0 && error.why === "lost") return true;
    const wait = Math.min(LONGEST_WAIT_MS, FIRST_WAIT_MS * 2 ** failures);
    this.#tell.waiting(error.why, wait / 1000);
    await new Promise((resolve) => {
      this.#skipWait = resolve;
      setTimeout(resolve, wait * (0.8 + 0.4 * Math.random()));
    });
    return this.#on;
  }
}
