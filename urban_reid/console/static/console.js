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
