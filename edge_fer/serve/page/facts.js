// What answers: bundle, precision, engine, and whether they are certified on this machine; and its threshold.

/** Show what GET /v1/bundle said. parts: {name, pill, facts}. */
export function showFacts(told, { name, pill, facts }) {
  const { bundle, runtime } = told;
  name.textContent = `${bundle.model} ${runtime.precision} on ${runtime.engine.split(" ")[0]}`;
  const [verdict, text] = standing(told);
  pill.hidden = false;
  pill.className = `pill ${verdict}`;
  pill.replaceChildren(icon(verdict), text);
  const rows = [
    ["bundle", `${bundle.model}, ${runtime.precision}`],
    ["engine", `${runtime.engine} on ${runtime.device}${runtime.threads ? `, threads: ${runtime.threads}` : ""}`],
    ["detector", runtime.detector ?? "none"],
    ["certificate", told.certificate === null ? "none: nobody compared this bundle with its float original" : runtime.summary],
    ["edge-fer", runtime.version],
  ];
  if (verdict === "undecided") {
    rows.push(["to do", "run edge-fer self-test on this machine before you rely on the answers"]);
  }
  facts.replaceChildren(...rows.flatMap(([term, said]) => [element("dt", term), element("dd", said)]));
}

/** Where the threshold starts: [value, where it is from]. */
export function startingThreshold({ bundle, certificate, runtime }) {
  if (runtime.min_reliability !== null) return [runtime.min_reliability, "set by the server"];
  if (bundle.min_reliability !== null) return [bundle.min_reliability, "set by the bundle"];
  const measured = certificate?.reports?.map((report) => report.details?.abstention).find(Boolean);
  if (measured) return [measured.threshold, "as in the certificate; the server sets none"];
  return [0, "neither the server nor the bundle sets one"];
}

/** The verdict as a colour and in words, for people. */
function standing({ bundle, certificate, runtime }) {
  if (bundle.failed) return ["failed", "failed its certificate"];
  if (certificate === null) return ["undecided", "no certificate"];
  return runtime.certified_here ? ["passed", "certified here"] : ["undecided", "not certified on this machine"];
}

function icon(name) {
  const drawn = document.createElementNS("http://www.w3.org/2000/svg", "svg");
  drawn.setAttribute("class", "icon");
  drawn.setAttribute("aria-hidden", "true");
  const use = document.createElementNS("http://www.w3.org/2000/svg", "use");
  use.setAttribute("href", `#i-${name}`);
  drawn.append(use);
  return drawn;
}

function element(tag, text) {
  const made = document.createElement(tag);
  made.textContent = text;
  return made;
}
