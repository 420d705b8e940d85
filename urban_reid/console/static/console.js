"use strict";
// A picture may be dropped anywhere on the field, also on one that came later; the form itself works without this file.
const field = ({ target }) => (target.closest ? target : target.parentElement)?.closest(".drop");
for (const kind of ["dragenter", "dragover"]) {
  document.addEventListener(kind, (event) => {
    const over = field(event);
    if (over) { event.preventDefault(); over.classList.add("over-it"); }
  });
}
document.addEventListener("dragleave", (event) => field(event)?.classList.remove("over-it"));
document.addEventListener("drop", (event) => {
  const onto = field(event);
  if (!onto) { return; }
  event.preventDefault();
  onto.classList.remove("over-it");
  if (event.dataTransfer.files.length) { onto.querySelector("input").files = event.dataTransfer.files; }
});
// What changes by itself is sent by the server; without this file the pages show what was so when they were loaded.
// What is shown stays when nothing comes any more, and a notice above it says since when that is so.
// Pictures that are still wanted stay: each one that is loaded anew is a look, which is written to the audit.
function change(part, html) {
  const fresh = document.createElement("template");
  fresh.innerHTML = html;
  const named = (picture) => picture.getAttribute("src").split("?")[0];
  const shown = new Map([...part.querySelectorAll("img")].map((picture) => [named(picture), picture]));
  const stay = [];
  for (const picture of fresh.content.querySelectorAll("img")) {
    const before = shown.get(named(picture));
    if (!before || !shown.delete(named(picture))) { continue; }
    const place = document.createElement("span");  // in the template's own document a picture would be loaded anew
    picture.replaceWith(place);
    stay.push([place, before]);
  }
  part.replaceChildren(fresh.content);
  for (const [place, picture] of stay) { place.replaceWith(picture); }
}
for (const part of document.querySelectorAll("[data-events]")) {
  const notice = document.createElement("div");
  part.before(notice);
  let events, last = new Date(), over = false;
  let waits = null;  // the newest that came while somebody was in the part
  const say = (html) => {
    if (notice.innerHTML !== html) { notice.innerHTML = html; }
    if (html !== "" || waits === null) { part.classList.toggle("stale", html !== ""); }
  };
  // Nothing is taken away from under somebody who reads it by keyboard, or has opened something in it.
  const show = () => {
    if (waits === null || part.contains(document.activeElement) || part.querySelector("details[open]")) { return; }
    change(part, waits);
    waits = null;
    part.classList.toggle("stale", notice.innerHTML !== "");
  };
  part.addEventListener("focusout", () => setTimeout(show));  // nothing has the focus before
  part.addEventListener("toggle", show, true);  // which does not bubble
  const lost = () => {
    if (notice.querySelector("time")) { return; }
    const said = document.querySelector("#lost").content.cloneNode(true);
    said.querySelector("time").textContent = last.toLocaleTimeString();
    notice.replaceChildren(said);
    part.classList.add("stale");
  };
  const heard = (use) => (event) => { last = new Date(); use(JSON.parse(event.data)); };
  const open = () => {
    events = new EventSource(part.dataset.events);
    events.addEventListener("message", heard((html) => {
      waits = html;
      say("");
      show();
    }));
    events.addEventListener("alive", heard(() => say("")));
    events.addEventListener("away", heard(say));
    events.addEventListener("over", heard((html) => { over = true; events.close(); say(html); }));
    events.addEventListener("error", lost);
  };
  open();
  setInterval(() => {
    const silent = new Date() - last > 45000;
    if (silent) { lost(); }
    // A browser gives up on an answer that is no stream, and does not notice a connection that is dead.
    if (!over && (events.readyState === EventSource.CLOSED || silent)) { events.close(); open(); }
  }, 5000);
}
for (const page of document.querySelectorAll("[data-reload]")) {
  setTimeout(() => location.reload(), 1000 * page.dataset.reload);
}
// On paper are all pictures, and not only those that were scrolled to.
addEventListener("beforeprint", () => { for (const picture of document.images) { picture.loading = "eager"; } });
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
// A changed filter asks again at once, where there is something to filter; what came of it is said to who cannot see it.
const spoken = document.createElement("p");
spoken.className = "unseen";
spoken.setAttribute("role", "status");
document.querySelector("footer").append(spoken);
let askedLast = null;
document.addEventListener("change", async (event) => {
  const form = event.target.closest("[data-at-once]") && event.target.form;
  const hits = document.getElementById("hits");
  if (!form || !hits || !form.checkValidity()) { return; }
  const asked = askedLast = {};  // only what was asked last is shown
  hits.closest("section").setAttribute("aria-busy", "true");
  const body = new FormData(form);
  const answer = await fetch(form.action, { method: "POST", body }).catch(() => null);
  if (asked !== askedLast) { return; }
  if (!answer?.ok) { form.submit(); return; }
  const page = new DOMParser().parseFromString(await answer.text(), "text/html");
  if (asked !== askedLast) { return; }
  document.querySelector("main").replaceWith(page.querySelector("main"));
  tellKeys();
  spoken.textContent = document.getElementById("hits")?.textContent ?? "";
  const filter = document.getElementById(event.target.id);
  filter?.closest("details")?.setAttribute("open", "");
  filter?.focus({ preventScroll: true });
});
// Whoever is chosen among results is shown beside them, on pages with room for it; everywhere else a click leads on.
const looked = new Map();
let waits = 0;
const hasRoom = () => matchMedia("(min-width: 1000px)").matches;
const tellKeys = () => { for (const line of document.querySelectorAll(".keys")) { line.hidden = false; } };
tellKeys();
function choose(link) {
  if (link.hasAttribute("aria-current") || !hasRoom()) { return; }
  for (const other of document.querySelectorAll("[data-beside][aria-current]")) { other.removeAttribute("aria-current"); }
  link.setAttribute("aria-current", "true");
  clearTimeout(waits);
  waits = setTimeout(async () => {  // each look is written to the audit, and none that only went by
    const path = link.dataset.beside;
    if (!looked.has(path)) {
      const answer = await fetch(path);
      if (!answer.ok || answer.redirected) { return; }
      looked.set(path, await answer.text());
    }
    const aside = link.closest(".beside").querySelector("aside");
    if (link.hasAttribute("aria-current")) { aside.innerHTML = looked.get(path); aside.hidden = false; }
  }, 200);
}
document.addEventListener("focusin", (event) => { if (event.target.matches("[data-beside]")) { choose(event.target); } });
document.addEventListener("click", (event) => {
  const link = event.target.closest("[data-beside]");
  const plain = !event.ctrlKey && !event.metaKey && !event.shiftKey;
  if (link && plain && event.detail === 1 && hasRoom() && link.dataset.was !== "chosen") { event.preventDefault(); }
  for (const other of document.querySelectorAll("[data-was]")) { delete other.dataset.was; }
  if (link) { link.dataset.was = "chosen"; link.focus(); choose(link); }
});
document.addEventListener("keydown", (event) => {
  const at = event.target.closest("[data-beside]");
  if (!at || event.ctrlKey || event.metaKey || event.altKey) { return; }
  const links = [...at.closest(".grid").querySelectorAll("[data-beside]")];
  const row = links.filter((one) => one.getBoundingClientRect().top === links[0].getBoundingClientRect().top).length;
  const step = { ArrowRight: 1, ArrowLeft: -1, ArrowDown: row, ArrowUp: -row, Home: -links.length, End: links.length }[event.key];
  if (!step) { return; }
  event.preventDefault();
  links[Math.min(Math.max(links.indexOf(at) + step, 0), links.length - 1)].focus();
});
