// The command palette: search from any page, by keys alone. Without it the menu's box leads to the page of the search.
"use strict";

(() => {
  const palette = document.getElementById("palette");
  const find = document.getElementById("find");
  if (!palette || !find) return;
  const input = document.getElementById("palette-words");
  const results = document.getElementById("palette-results");
  const links = () => [...results.querySelectorAll("a, button")];

  const open = () => {
    if (palette.open) return;
    palette.showModal();
    input.select();
    htmx.trigger(input, "open");
  };
  const writes = (place) => place.closest("input, select, textarea, [contenteditable]") !== null;
  document.addEventListener("keydown", (event) => {
    const isChord = (event.ctrlKey || event.metaKey) && !event.altKey && event.key.toLowerCase() === "k";
    const isSlash = event.key === "/" && !event.ctrlKey && !event.metaKey && !event.altKey && !writes(event.target);
    if (!isChord && !isSlash) return;
    event.preventDefault();
    open();
  });
  find.addEventListener("click", (event) => {
    if (event.ctrlKey || event.metaKey || event.shiftKey) return;
    event.preventDefault();
    open();
  });
  palette.addEventListener("click", (event) => event.target === palette && palette.close());

  // A link to another place of this page leaves the palette.
  results.addEventListener("click", (event) => event.target.closest("a") && palette.close());

  // The first result is opened by Enter once it is the result of these words; before that the page of the search is.
  let answered = null;
  document.addEventListener("htmx:afterRequest", (event) => {
    if (event.target === input && event.detail.successful) answered = event.detail.requestConfig.parameters.q;
  });
  palette.addEventListener("keydown", (event) => {
    const all = links();
    const place = all.indexOf(document.activeElement);
    if (event.key === "ArrowDown") (all[place + 1] || all[0])?.focus();
    else if (event.key === "ArrowUp") (place > 0 ? all[place - 1] : input).focus();
    else if (event.key === "Enter" && document.activeElement === input && all.length && answered === input.value) all[0].click();
    else if (event.key.length === 1 && place >= 0 && !event.ctrlKey && !event.metaKey) return input.focus();
    else return;
    event.preventDefault();
  });
})();
