"use strict";
// A picture may be dropped anywhere on the field; the form itself works without this file.
for (const field of document.querySelectorAll(".drop")) {
  const input = field.querySelector("input");
  for (const kind of ["dragenter", "dragover"]) {
    field.addEventListener(kind, (event) => { event.preventDefault(); field.classList.add("over-it"); });
  }
  field.addEventListener("dragleave", () => field.classList.remove("over-it"));
  field.addEventListener("drop", (event) => {
    event.preventDefault();
    field.classList.remove("over-it");
    if (event.dataTransfer.files.length) { input.files = event.dataTransfer.files; }
  });
}
// What changes by itself is sent by the server; without this file the pages show what was so when they were loaded.
for (const part of document.querySelectorAll("[data-events]")) {
  const events = new EventSource(part.dataset.events);
  events.addEventListener("message", (event) => {
    // Nothing is taken away from under somebody who reads it by keyboard, or has opened something in it.
    const busy = part.contains(document.activeElement) || part.querySelector("details[open]");
    if (!busy) { part.innerHTML = JSON.parse(event.data); }
  });
}
setInterval(() => {
  for (const picture of document.querySelectorAll("img[data-again]")) {
    if (!document.hidden) { picture.src = picture.src.split("?")[0] + "?" + Date.now(); }
  }
}, 20000);
// One key for what a page offers most: the letter stands beside its button, which works without this file.
document.addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey || event.repeat || event.target.closest("input, textarea, select")) { return; }
  const offered = document.querySelector(`[data-key="${CSS.escape(event.key.toLowerCase())}"]`);
  if (offered) { event.preventDefault(); offered.click(); }
});
