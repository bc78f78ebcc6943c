// The shortcuts, and the list of them. They can be switched off: some people's tools send single letters.

/** parts: {page, dialog, open, on}; actions: what each key does. */
export function watchKeys({ page, dialog, open, on }, actions) {
  const list = () => dialog.open || dialog.showModal();
  open.addEventListener("click", list);
  page.addEventListener("keydown", (event) => {
    if (!on.checked || event.ctrlKey || event.metaKey || event.altKey || document.querySelector("dialog[open]")) return;
    const focused = event.target;
    if (focused.matches?.("input:not([type=range], [type=radio]), select, textarea")) return;
    // Space works whatever has the focus.
    if (event.key === " " && focused.matches?.("button, summary, input")) return;
    const act = event.key === "?" ? list : actions[event.key.toLowerCase()];
    if (!act) return;
    event.preventDefault();
    act();
  });
}

/** A function that asks the visitor for the token: parts {dialog, form, input, why, cancel}. */
export function tokenAsker({ dialog, form, input, why, cancel }) {
  let answer = () => {};
  form.addEventListener("submit", () => answer(input.value.trim()));
  cancel.addEventListener("click", () => dialog.close());
  dialog.addEventListener("close", () => {
    answer(null); // of no effect after a submission
    input.value = "";
  });
  return (wasRefused) => {
    if (wasRefused) why.textContent = "That token was not accepted. Whoever runs this server can tell you the right one.";
    input.value = "";
    dialog.showModal();
    input.focus();
    return new Promise((resolve) => (answer = resolve));
  };
}
