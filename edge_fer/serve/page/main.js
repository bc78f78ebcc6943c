// The page: holds what is shown and passes it between its parts. Each part is a file of its own.

import { Camera, isSecure } from "./camera.js";
import { showFacts, startingThreshold } from "./facts.js";
import { Gauge } from "./gauge.js";
import { tokenAsker, watchKeys } from "./keys.js";
import { Live } from "./live.js";
import { Announcer, Notices } from "./notices.js";
import { Panel } from "./panel.js";
import { People } from "./people.js";
import { groundFor, readPhoto, watchForPhotos } from "./photo.js";
import { Picture } from "./picture.js";
import { Service, Trouble } from "./service.js";
import { Speed } from "./speed.js";
import { identity, isUnsure, spoken } from "./words.js";

const at = (id) => document.getElementById(id);
const ATTEMPTS = 5; // of a photo, while the service is busy
const LONGEST_WAIT_S = 30;

const service = new Service(
  tokenAsker({
    dialog: at("token-dialog"), form: at("token-form"), input: at("token"), why: at("token-why"), cancel: at("token-cancel"),
  }),
);
const notices = new Notices({ box: at("notice"), text: at("notice-text"), action: at("notice-action"), close: at("notice-close") });
const announcer = new Announcer(at("said"));
const picture = new Picture(at("picture"), choose);
const people = new People(at("people"), choose);
const panel = new Panel(at("verdict"), at("bars"));
const speed = new Speed({ box: at("speed"), rate: at("rate"), trip: at("trip"), bar: at("stages"), figures: at("stage-figures") });
const gauge = new Gauge(
  {
    gauge: at("gauge"), fill: at("gauge-fill"), text: at("gauge-text"), slider: at("threshold"),
    value: at("threshold-value"), origin: at("threshold-origin"), reset: at("threshold-reset"),
  },
  () => render(),
);
const camera = new Camera(() => {
  stopCamera();
  notices.show("error", "The camera is gone.", ["Start it again", startCamera]);
});
const live = new Live(camera, service, { answer: gotFrame, broken: gotBroken, waiting: waitForStream, failed: (text) => notices.show("error", text) });

let shown = null; // {source, width, height, faces, live, name, frame}
let chosen = null; // identity of the face whose answer is shown
let photo = null; // AbortController of the photo that is on its way
let starting = null; // {dropped} while a camera starts, which may wait for the visitor's permission

// What is shown

function render(urgent = false) {
  if (shown === null) return;
  const faces = shown.faces;
  const names = faces.map(identity);
  // Someone who turned away keeps being the chosen one for when they are back.
  const index = names.includes(chosen) ? names.indexOf(chosen) : faces.length ? largest(faces) : -1;
  if (chosen === null && index >= 0) chosen = names[index];
  const face = faces[index] ?? null;
  const scene = { ...shown, chosen: names[index] ?? null, threshold: gauge.threshold };
  picture.show(scene);
  people.show(scene);
  at("guide").hidden = face !== null;
  at("result").hidden = face === null;
  gauge.show(face?.reliability ?? null);
  describe(face, urgent);
  if (face !== null) panel.show(face, gauge.threshold, faces.length > 1 ? "the chosen" : "this");
}

function describe(face, urgent) {
  const badge = at("live");
  badge.hidden = false;
  badge.className = `badge ${!shown.live || !live.on ? "" : live.paused ? "paused" : "running"}`;
  const rate = speed.rate === null ? "" : `, ${speed.rate.toFixed(1)} frames/s`;
  const state = !live.on ? "camera stopped" : live.paused ? `paused at frame ${shown.frame}` : `live${rate}`;
  const count = shown.faces.length === 1 ? "1 face" : `${shown.faces.length || "no"} faces`;
  const text = shown.live ? `${state} · ${count}` : `${shown.name} · ${count}`;
  if (badge.textContent !== text) badge.textContent = text;
  const said = face === null ? "No face found." : spoken(face, gauge.threshold, shown.faces.length - 1);
  const key = face === null ? said : `${face.label} ${isUnsure(face, gauge.threshold)} ${shown.faces.length}`;
  announcer.say(said, shown.live ? key : undefined, urgent || !shown.live);
  at("picture").setAttribute("aria-label", `${shown.live ? "Camera picture" : `Photo ${shown.name}`}: ${count}. ${said}`);
}

function choose(name) {
  chosen = name;
  render(true);
}

const largest = (faces) => {
  const area = ({ box }) => (box === null ? Infinity : box[2] * box[3]);
  return faces.reduce((best, face, index) => (area(face) > area(faces[best]) ? index : best), 0);
};

function show(scene) {
  if (shown?.live !== scene.live || !scene.live) chosen = null;
  shown = scene;
  const away = at("welcome").contains(document.activeElement);
  at("welcome").hidden = true;
  at("toolbar").hidden = false;
  if (away) at(scene.live ? "pause" : "answer").focus(); // what had the focus is gone
}

// A photo

async function givePhotos(files) {
  const [file, ...others] = files;
  if (file.type && !file.type.startsWith("image/")) {
    notices.show("error", `${file.name} is no picture. Give a JPEG, PNG, WebP, GIF, BMP or TIFF.`);
    return;
  }
  stopCamera();
  if (starting !== null) starting.dropped = true;
  at("live").hidden = true;
  photo?.abort();
  photo = new AbortController();
  const { signal } = photo;
  speed.clear();
  notices.show("plain", `Asking about ${file.name} …`);
  try {
    const [seen, [answer, tripMs]] = await Promise.all([readPhoto(file), infer(file, signal)]);
    if (signal.aborted) return;
    notices.hide();
    speed.add(answer.latency_ms, tripMs, false);
    const ground = seen.source === null ? groundFor(answer.faces) : seen;
    show({ ...ground, faces: answer.faces, live: false, name: file.name, frame: null });
    render(true);
    remark(answer.faces, seen.source, others.length);
  } catch (error) {
    if (error.name === "AbortError") return;
    if (!(error instanceof Trouble)) throw error;
    notices.show("error", hint(error), ["Try again", () => givePhotos([file])]);
  }
}

async function infer(file, signal) {
  for (let attempt = 1; ; attempt += 1) {
    const started = performance.now();
    try {
      return [await service.infer(file, signal), performance.now() - started];
    } catch (error) {
      if (error.status !== 503 || attempt === ATTEMPTS) throw error;
      await countDown(Math.min(error.retryAfterS, LONGEST_WAIT_S), signal);
    }
  }
}

async function countDown(seconds, signal) {
  let skip = false;
  for (let left = seconds; left > 0 && !skip; left -= 1) {
    notices.show("warning", `The server is busy. Trying again in ${left} s.`, ["Now", () => (skip = true)]);
    await new Promise((resolve) => setTimeout(resolve, 1000));
    signal.throwIfAborted();
  }
}

function remark(faces, source, others) {
  if (others) notices.show("plain", `One photo at a time: the first of ${others + 1} is shown.`);
  else if (!faces.length) notices.show("warning", "No face found. Faces that look at the camera, upright and larger than about 40 pixels, are found best.");
  else if (source === null) notices.show("plain", "This browser cannot show this picture's format. The answer is right all the same.");
}

function hint(error) {
  if (error.status === 413) return `This photo is more than the server takes: ${error.message}`;
  if (error.status === 503) return "The server is still busy.";
  return error.message;
}

async function giveExample() {
  try {
    const response = await fetch("page/astronaut.jpg");
    if (!response.ok) throw new Error(String(response.status));
    givePhotos([new File([await response.blob()], "astronaut.jpg", { type: "image/jpeg" })]);
  } catch {
    notices.show("error", "The server cannot be reached. Is it still running?", ["Try again", giveExample]);
  }
}

// The camera

async function startCamera(deviceId = null) {
  if (starting !== null) return;
  const mine = (starting = { dropped: false });
  photo?.abort();
  notices.show("plain", "Waiting for the camera …");
  speed.clear();
  try {
    await live.start(deviceId);
    if (mine.dropped) return stopCamera(); // a photo came meanwhile
    notices.hide();
    listCameras();
    showControls(); // a disabled button takes no focus
    if (document.activeElement === at("camera")) at("pause").focus(); // Space pauses now, and stops no camera
  } catch (error) {
    stopCamera();
    notices.show(isSecure() ? "error" : "warning", error.message, isSecure() ? ["Try again", () => startCamera()] : null);
  } finally {
    starting = null;
    showControls();
  }
}

function stopCamera() {
  if (!live.on) return;
  live.stop();
  speed.clear();
  showControls();
}

function toggleCamera() {
  if (!live.on) return startCamera();
  stopCamera();
  notices.hide();
  if (shown?.live) {
    shown = null;
    picture.hide();
    for (const id of ["toolbar", "live", "result", "people"]) at(id).hidden = true;
    for (const id of ["welcome", "guide"]) at(id).hidden = false;
    at("welcome-camera").focus();
    gauge.show(null);
  }
}

function gotFrame(canvas, answer, tripMs) {
  if (answer.faces.length || !shown?.live) notices.hide();
  speed.add(answer.latency_ms, tripMs, true);
  show({ source: canvas, width: canvas.width, height: canvas.height, faces: answer.faces, live: true, name: "camera", frame: answer.frame });
  render(live.paused);
}

function gotBroken(text) {
  notices.show("warning", text);
}

function waitForStream(why, seconds) {
  const what = {
    busy: "The server has as many cameras as it takes.", restarting: "The server is restarting.",
    "too large": "The server refused this frame as too large.",
  }[why] ?? "The connection to the server is lost.";
  notices.show("error", `${what} Trying again in ${Math.ceil(seconds)} s.`, ["Now", () => live.retry()]);
}

function togglePause() {
  if (!live.on) return;
  if (live.paused) live.resume();
  else live.pause();
  showControls();
  render(true);
}

function step() {
  if (!live.on) return;
  live.step();
  showControls();
}

function showControls() {
  const on = live.on;
  setButton("camera", on ? "stop" : "camera", on ? "Stop" : "Camera");
  setButton("pause", live.paused ? "play" : "pause", live.paused ? "Go on" : "Pause");
  at("pause").disabled = at("step").disabled = !on;
  at("cameras").hidden = !on || at("cameras").options.length < 2;
}

function setButton(id, icon, text) {
  at(id).querySelector("use").setAttribute("href", `#i-${icon}`);
  at(id).querySelector("span").textContent = text;
}

async function listCameras() {
  const { names, used } = await camera.list();
  at("cameras").replaceChildren(...names.map(([id, name]) => new Option(name, id, false, id === used)));
  showControls();
}

// The start

async function introduce() {
  try {
    const told = await service.bundle();
    showFacts(told, { name: at("bundle-name"), pill: at("bundle-pill"), facts: at("bundle-facts") });
    gauge.startAt(...startingThreshold(told));
  } catch (error) {
    if (!(error instanceof Trouble)) throw error;
    at("bundle-name").textContent = error.status === 401 ? "token needed" : "server not reached";
    notices.show("error", error.message, ["Try again", () => { notices.hide(); introduce(); }]);
  }
}

for (const id of ["camera", "welcome-camera"]) at(id).addEventListener("click", toggleCamera);
for (const id of ["photo", "welcome-photo"]) at(id).addEventListener("click", () => at("file").click());
at("welcome-example").addEventListener("click", giveExample);
at("pause").addEventListener("click", togglePause);
at("step").addEventListener("click", step);
at("cameras").addEventListener("change", () => startCamera(at("cameras").value));
watchForPhotos({ page: document, file: at("file"), dropping: at("dropping") }, givePhotos);
const nudge = (change) => () => gauge.nudge(change);
const numbers = Object.fromEntries([..."123456789"].map((key, index) => [key, () => people.chooseAt(index)]));
watchKeys(
  { page: document, dialog: at("keys-dialog"), open: at("keys"), on: at("keys-on") },
  { ...numbers, c: toggleCamera, o: () => at("file").click(), " ": togglePause, ".": step, "[": nudge(-0.05), "]": nudge(0.05) },
);
gauge.startAt(0, "");
at("insecure").hidden = isSecure();
introduce();
