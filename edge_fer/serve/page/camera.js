// The camera and its newest frame as a JPEG. Knows nothing of what becomes of it.

const LONGEST_SIDE = 640;
const QUALITY = 0.9;

const REFUSED = {
  NotAllowedError: "The camera was not allowed. Allow it in the browser's address bar, then try again. A photo works without it.",
  NotFoundError: "There is no camera here. A photo works without one.",
  NotReadableError: "The camera is there, but another program holds it. Close that one, then try again.",
  OverconstrainedError: "That camera is gone. Choose another one.",
};
const INSECURE =
  "The camera needs https or localhost: open this page on the machine that serves it, through an SSH tunnel or an https proxy.";

export const isSecure = () => window.isSecureContext && Boolean(navigator.mediaDevices);

export class Camera {
  #video = document.createElement("video");
  #media = null;

  /** onGone is called when the camera is taken away. */
  constructor(onGone) {
    this.onGone = onGone;
    this.#video.muted = true;
    this.#video.playsInline = true;
  }

  /** Start a camera, or the one that is named. Rejects with an Error whose message a visitor can act on. */
  async start(deviceId = null) {
    if (!isSecure()) throw new Error(INSECURE);
    this.stop();
    const which = deviceId === null ? { facingMode: "user" } : { deviceId: { exact: deviceId } };
    try {
      const size = { width: { ideal: LONGEST_SIDE }, height: { ideal: 480 } };
      this.#media = await navigator.mediaDevices.getUserMedia({ video: { ...which, ...size }, audio: false });
    } catch (error) {
      throw new Error(REFUSED[error.name] ?? `The camera does not start: ${error.message || error.name}.`);
    }
    this.#media.getVideoTracks()[0].onended = () => this.onGone();
    this.#video.srcObject = this.#media;
    await this.#video.play();
  }

  stop() {
    for (const track of this.#media?.getTracks() ?? []) {
      track.onended = null;
      track.stop();
    }
    this.#media = null;
    this.#video.srcObject = null;
  }

  /** The cameras there are, as [id, name], and the one in use. */
  async list() {
    const devices = await navigator.mediaDevices.enumerateDevices();
    const cameras = devices.filter((device) => device.kind === "videoinput" && device.deviceId);
    const names = cameras.map((device, index) => [device.deviceId, device.label || `Camera ${index + 1}`]);
    return { names, used: this.#media?.getVideoTracks()[0].getSettings().deviceId };
  }

  /** Wait for a frame that was not given yet: {canvas, blob}, at most 640 pixels on its longer side. */
  async frame() {
    await new Promise((resolve) => {
      if (this.#video.requestVideoFrameCallback) this.#video.requestVideoFrameCallback(resolve);
      else requestAnimationFrame(resolve);
    });
    const { videoWidth, videoHeight } = this.#video;
    const scale = Math.min(1, LONGEST_SIDE / Math.max(videoWidth, videoHeight, 1));
    const canvas = document.createElement("canvas");
    canvas.width = Math.max(1, Math.round(scale * videoWidth));
    canvas.height = Math.max(1, Math.round(scale * videoHeight));
    canvas.getContext("2d").drawImage(this.#video, 0, 0, canvas.width, canvas.height);
    const blob = await new Promise((resolve) => canvas.toBlob(resolve, "image/jpeg", QUALITY));
    return { canvas, blob };
  }
}
