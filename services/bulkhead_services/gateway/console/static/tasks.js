// The list of tasks: an address without empty filters, choices that outlive news, links and views of what is shown.
"use strict";

(() => {
  const byId = (id) => document.getElementById(id);
  const boxes = () => [...document.querySelectorAll("#rows input[form=bulk]")];

  document.addEventListener("htmx:configRequest", (event) => {
    if (event.target.id !== "filter") return;
    for (const [name, value] of Object.entries(event.detail.parameters)) {
      if (value === "") delete event.detail.parameters[name];
    }
  });

  const showPicked = () => {
    const all = boxes();
    const count = all.filter((box) => box.checked).length;
    const bar = byId("bulk");
    if (!bar) return;
    bar.classList.toggle("idle", count === 0);
    byId("picked").textContent = count === 1 ? "1 task" : `${count} tasks`;
    const pickAll = document.querySelector(".pick-all");
    if (!pickAll) return;
    pickAll.hidden = false;
    pickAll.checked = count > 0 && count === all.length;
    pickAll.indeterminate = count > 0 && count < all.length;
  };
  document.addEventListener("change", (event) => {
    if (event.target.matches(".pick-all")) for (const box of boxes()) box.checked = event.target.checked;
    showPicked();
  });

  let picked = new Set();
  document.addEventListener("htmx:beforeSwap", (event) => {
    if (event.detail.target.id === "rows") picked = new Set(boxes().filter((box) => box.checked).map((box) => box.value));
  });
  document.addEventListener("htmx:afterSwap", (event) => {
    if (event.detail.target.id !== "rows") return;
    for (const box of boxes()) box.checked = picked.has(box.value);
    showPicked();
  });

  // What was done is done: the next sending is another act, on other tasks.
  document.addEventListener("htmx:afterRequest", (event) => {
    if (event.target.id !== "bulk" || event.detail.xhr.status >= 400) return;
    const fresh = crypto.getRandomValues(new Uint8Array(16));
    byId("bulk").elements.key.value = Array.from(fresh, (byte) => byte.toString(16).padStart(2, "0")).join("");
    for (const box of boxes()) box.checked = false;
    showPicked();
  });

  byId("save-view").addEventListener("submit", (event) => {
    event.target.elements.query.value = location.search.slice(1);
  });
  const copyLink = byId("copy-link");
  copyLink.hidden = !navigator.clipboard;
  copyLink.addEventListener("click", async () => {
    await navigator.clipboard.writeText(location.href);
    copyLink.lastChild.textContent = " Copied";
  });
  showPicked();
})();
