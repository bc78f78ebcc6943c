// One WebSocket to the service: a frame goes out, its answer comes back. Knows no camera and no elements.

const ANSWER_WITHIN_MS = 10000;
const WHY = { 1001: "restarting", 1008: "token", 1009: "too large", 1013: "busy" };

/** The stream ended; `why`: one of WHY, or "lost". */
export class Ended extends Error {
  constructor(why) {
    super(`the stream ended: ${why}`);
    this.why = why;
  }
}

export class Stream {
  #socket = null;
  #waiting = null; // for the answer to the one frame in flight

  /** Send a frame and resolve to its answer; opens the stream where there is none. Rejects with Ended. */
  async ask(blob, token) {
    if (this.#socket?.readyState !== WebSocket.OPEN) await this.#open(token);
    const answer = this.#answer();
    this.#socket.send(blob);
    return answer;
  }

  close() {
    this.#socket?.close(1000);
    this.#socket = null;
    this.#settle("reject", new Ended("lost"));
  }

  #open(token) {
    this.close();
    const address = new URL("v1/stream", document.baseURI);
    address.protocol = address.protocol.replace("http", "ws");
    const socket = new WebSocket(address);
    this.#socket = socket;
    socket.onmessage = (event) => this.#settle("resolve", JSON.parse(event.data));
    return new Promise((resolve, reject) => {
      socket.onopen = () => {
        if (token !== null) socket.send(JSON.stringify({ token }));
        resolve();
      };
      socket.onclose = (event) => {
        const ended = new Ended(WHY[event.code] ?? "lost");
        reject(ended); // it never opened; of no effect later
        if (this.#socket === socket) this.#settle("reject", ended);
      };
    });
  }

  #answer() {
    return new Promise((resolve, reject) => {
      const late = setTimeout(() => this.close(), ANSWER_WITHIN_MS);
      this.#waiting = { resolve, reject, late };
    });
  }

  #settle(how, value) {
    const waiting = this.#waiting;
    if (waiting === null) return;
    this.#waiting = null;
    clearTimeout(waiting.late);
    waiting[how](value);
  }
}
