// Asks the service over HTTP. Knows its errors and the token, no elements.

const TOKEN = "edge-fer-token";

/** Something that a request came to instead of an answer; `status` 0: the service was not reached. */
export class Trouble extends Error {
  constructor(text, status = 0, retryAfterS = null) {
    super(text);
    this.status = status;
    this.retryAfterS = retryAfterS;
  }
}

export class Service {
  #askToken;
  #asking = null;

  /** askToken(wasRefused) resolves to what the visitor typed, or null. */
  constructor(askToken) {
    this.#askToken = askToken;
  }

  get token() {
    return sessionStorage.getItem(TOKEN);
  }

  bundle() {
    return this.#ask("v1/bundle", {});
  }

  /** The file goes as it is, so that the answer is the one that `infer` gives. */
  infer(file, signal) {
    const headers = { "Content-Type": file.type || "application/octet-stream" };
    return this.#ask("v1/infer", { method: "POST", body: file, headers, signal });
  }

  /** Ask for another token, once for all who wait for it. */
  async renewToken() {
    this.#asking ??= this.#askToken(this.token !== null).finally(() => (this.#asking = null));
    const typed = await this.#asking;
    if (typed === null) throw new Trouble("This server gives no answers without its token.", 401);
    sessionStorage.setItem(TOKEN, typed);
  }

  async #ask(path, options) {
    for (;;) {
      const used = this.token;
      const headers = { ...options.headers };
      if (used !== null) headers.Authorization = `Bearer ${used}`;
      const response = await reach(path, { ...options, headers, cache: "no-store" });
      if (response.ok) return response.json();
      if (response.status !== 401) throw await trouble(response);
      if (used === this.token) await this.renewToken();
    }
  }
}

async function reach(path, options) {
  try {
    return await fetch(path, options);
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new Trouble("The server cannot be reached. Is it still running?");
  }
}

async function trouble(response) {
  const wait = Number(response.headers.get("Retry-After"));
  let text = `the server answered ${response.status}`;
  try {
    text = (await response.json()).error ?? text;
  } catch {
    // Something between here and the service answered: its number has to do.
  }
  return new Trouble(text, response.status, response.status === 503 ? wait || 1 : null);
}
