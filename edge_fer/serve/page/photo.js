// A photo by file, by drop or by paste, and how it looks. Knows no service.

const LARGEST_SHOWN = 2048; // pixels of the longer side that are kept for showing

/** Watch for photos. parts: {page, file, dropping}; onPhotos(files) is given those that came together. */
export function watchForPhotos({ page, file, dropping }, onPhotos) {
  file.addEventListener("change", () => {
    if (file.files.length) onPhotos([...file.files]);
    file.value = ""; // so that the same file can be chosen again
  });
  page.addEventListener("paste", (event) => {
    const files = [...(event.clipboardData?.files ?? [])];
    if (files.length) onPhotos(files);
  });
  let inside = 0; // the events come for every element that is passed over
  const carries = (event) => [...(event.dataTransfer?.types ?? [])].includes("Files");
  const leave = () => {
    inside = 0;
    dropping.hidden = true;
  };
  page.addEventListener("dragenter", (event) => {
    if (!carries(event)) return;
    inside += 1;
    dropping.hidden = false;
  });
  page.addEventListener("dragleave", () => {
    inside -= 1;
    if (inside <= 0) leave();
  });
  page.addEventListener("dragover", (event) => carries(event) && event.preventDefault());
  page.addEventListener("drop", (event) => {
    leave();
    if (!carries(event)) return;
    event.preventDefault(); // else the browser leaves the page for the file
    onPhotos([...event.dataTransfer.files]);
  });
}

/**
 * Decode a photo for showing: {source, width, height}, upright by its EXIF as the service turns it;
 * source null: a format that this browser does not show.
 */
export async function readPhoto(file) {
  let bitmap;
  try {
    bitmap = await createImageBitmap(file, { imageOrientation: "from-image" });
  } catch {
    return { source: null, width: 4, height: 3 };
  }
  const { width, height } = bitmap;
  const scale = Math.min(1, LARGEST_SHOWN / Math.max(width, height));
  if (scale === 1) return { source: bitmap, width, height };
  const source = document.createElement("canvas");
  source.width = Math.round(scale * width);
  source.height = Math.round(scale * height);
  const context = source.getContext("2d");
  context.imageSmoothingQuality = "high";
  context.drawImage(bitmap, 0, 0, source.width, source.height);
  bitmap.close();
  return { source, width, height };
}

/** The size of a plain ground on which boxes can be drawn when the picture cannot be shown. */
export function groundFor(faces) {
  const boxes = faces.map((face) => face.box).filter(Boolean);
  const right = Math.max(4, ...boxes.map(([x, , width]) => 1.15 * (x + width)));
  const bottom = Math.max(3, ...boxes.map(([, y, , height]) => 1.15 * (y + height)));
  return { source: null, width: right, height: bottom };
}
