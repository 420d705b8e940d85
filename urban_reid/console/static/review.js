"use strict";
// Answers without a wait: the next pair is there before it is asked for. Without this file each answer loads a page.
(() => {
  const main = () => document.querySelector("main");
  let next = null;  // { after, url, page }: the next pair, read ahead, and the link that led to it
  let sent = Promise.resolve();
  const pair = (page) => ["left", "right"].map((side) => page.querySelector(`input[name=${side}]`)?.value).join();
  const readAhead = async () => {
    next = null;
    const here = main();
    const after = here.querySelector("a[rel=next]")?.href;
    if (!after) { return; }
    try {
      await sent;  // else the queue still holds what was just answered
      let url = after;
      let page;
      do {  // two decisions may be about the same two passages, which are asked about once
        const answer = await fetch(url);
        if (!answer.ok || answer.redirected) { return; }
        page = new DOMParser().parseFromString(await answer.text(), "text/html").querySelector("main");
        if (pair(page) !== pair(here)) { break; }
        url = page.querySelector("a[rel=next]")?.href;
      } while (url);
      if (!url) { return; }
      await Promise.allSettled([...page.querySelectorAll(".two img")].map((picture) => {
        const ahead = new Image();
        ahead.src = picture.getAttribute("src");
        return ahead.decode();
      }));
      if (main() === here) { next = { after, url, page }; here.dataset.ahead = "true"; }
    } catch { /* not reached: the page is loaded as without this file */ }
  };
  const show = () => {
    const { url, page } = next;
    document.adoptNode(page);
    main().replaceWith(page);
    history.pushState(null, "", url);
    page.tabIndex = -1;
    page.focus({ preventScroll: true });
    readAhead();
  };
  const note = (text, role) => {
    const shown = document.createElement("div");
    shown.className = "said";
    shown.setAttribute("role", role);
    shown.textContent = text;
    return shown;
  };
  const send = (form, button, place) => {
    const body = new URLSearchParams(new FormData(form, button));
    return fetch(form.action, { method: "POST", body, headers: { "X-Part": "true" } }).then(async (answer) => {
      const page = new DOMParser().parseFromString(await answer.text(), "text/html");
      if (answer.ok && !answer.redirected) {
        place().replaceChildren(page.querySelector(".said") ?? page.body);
        return;
      }
      const wrong = note(page.querySelector("main [role=alert], main p")?.textContent ?? String(answer.status), "alert");
      place().replaceChildren(wrong);
    }).catch(() => { place().replaceChildren(note(place().dataset.lost, "alert")); });
  };
  const place = () => main().querySelector("[data-said]");
  document.addEventListener("submit", (event) => {
    const form = event.target;
    // What would join two people of many passages each has a page of its own first.
    if (form.matches("[data-answers]") && next && !event.submitter?.matches("[data-page]")) {
      event.preventDefault();
      sent = send(form, event.submitter, place);
      show();
      return sent;
    }
    if (form.matches("[data-undoes]")) {
      event.preventDefault();
      return send(form, event.submitter, place);
    }
  });
  document.addEventListener("click", (event) => {
    const link = event.target.closest("a[rel=next]");
    if (link && next && link.href === next.after && !event.ctrlKey && !event.metaKey) { event.preventDefault(); show(); }
  });
  addEventListener("popstate", () => { location.reload(); });
  readAhead();
})();
