// The page of a task: a tree by keyboard, and a row that is chosen without loading the page anew.
//
// The address holds the chosen row (`at`) and the filter (`find`); a row that is opened fetches its children.
"use strict";

(() => {
  const region = document.getElementById("tree");
  const pane = document.getElementById("pane");
  const filter = document.querySelector(".tree-find [name=find]");
  if (!region || !pane) return;
  const here = location.pathname;
  const rows = () => [...region.querySelectorAll("[role=treeitem]")];
  const level = (row) => Number(row.getAttribute("aria-level"));
  const query = (extra) => {
    const values = new URLSearchParams(location.search);
    for (const [name, value] of Object.entries(extra)) value ? values.set(name, value) : values.delete(name);
    return values.toString();
  };
  const mark = (row) => {
    for (const other of rows()) {
      other.setAttribute("aria-selected", other === row ? "true" : "false");
      other.tabIndex = other === row ? 0 : -1;
    }
  };

  const choose = async (row) => {
    if (row.dataset.under) return open(row);
    mark(row);
    history.replaceState(null, "", `${here}?${query({ at: row.dataset.key, as: "" })}`);
    await htmx.ajax("GET", `${here}/pane?at=${encodeURIComponent(row.dataset.key)}`, { target: "#pane", swap: "innerHTML" });
    if (matchMedia("(max-width: 60rem)").matches) pane.scrollIntoView({ block: "start" });
  };

  // Children of a row, or the next ones of a row that says that there are more.
  const open = async (row) => {
    const { under, from, key } = row.dataset;
    const address = `${here}/tree?under=${encodeURIComponent(under || key)}&from=${from || 0}`;
    const answer = await fetch(address, { headers: { "HX-Request": "true" } });
    if (!answer.ok) return location.assign(row.href);
    const piece = document.createElement("template");
    piece.innerHTML = await answer.text();
    const first = piece.content.querySelector("[role=treeitem]");
    if (under) row.replaceWith(piece.content);
    else {
      row.setAttribute("aria-expanded", "true");
      row.after(piece.content);
    }
    if (under && first) first.focus();
  };
  const shut = (row) => {
    row.setAttribute("aria-expanded", "false");
    while (row.nextElementSibling && level(row.nextElementSibling) > level(row)) row.nextElementSibling.remove();
  };
  const toggle = (row) => (row.getAttribute("aria-expanded") === "true" ? shut(row) : open(row));

  region.addEventListener("click", (event) => {
    const row = event.target.closest("[role=treeitem]");
    if (!row || event.ctrlKey || event.metaKey || event.shiftKey) return;
    event.preventDefault();
    if (event.target.closest(".twist")) toggle(row);
    else choose(row);
  });

  region.addEventListener("keydown", (event) => {
    const row = event.target.closest("[role=treeitem]");
    if (!row || event.ctrlKey || event.metaKey || event.altKey) return;
    const all = rows();
    const place = all.indexOf(row);
    const expanded = row.getAttribute("aria-expanded");
    const go = (target) => {
      if (!target) return;
      for (const other of all) other.tabIndex = other === target ? 0 : -1;
      target.focus();
    };
    const acts = {
      ArrowDown: () => go(all[place + 1]),
      ArrowUp: () => go(all[place - 1]),
      Home: () => go(all[0]),
      End: () => go(all[all.length - 1]),
      ArrowRight: () => (expanded === "false" ? open(row) : expanded === "true" && go(all[place + 1])),
      ArrowLeft: () =>
        expanded === "true" ? shut(row) : go(all.slice(0, place).reverse().find((other) => level(other) < level(row))),
      Enter: () => choose(row),
      " ": () => choose(row),
    };
    if (!acts[event.key]) return;
    event.preventDefault();
    acts[event.key]();
  });

  // A look at news asks for what is shown: the chosen row, the filter, the open rows.
  document.addEventListener("htmx:configRequest", (event) => {
    const { elt, triggeringEvent } = event.detail;
    if (elt !== region && elt !== pane) return;
    if (!triggeringEvent?.type.startsWith("sse:") && elt === pane) return;
    const opened = rows().filter((row) => row.getAttribute("aria-expanded") === "true");
    const extra = elt === region ? { open: opened.map((row) => row.dataset.key).join(",") } : {};
    event.detail.path = `${here}/${elt.id}?${query(extra)}`;
  });
  // A row that has ended says nothing new.
  document.addEventListener("htmx:beforeRequest", (event) => {
    const { elt, requestConfig } = event.detail;
    const isNews = requestConfig.triggeringEvent?.type.startsWith("sse:");
    const isFinal = pane.querySelector("[data-final]") && new URLSearchParams(location.search).has("at");
    if (elt === pane && isNews && isFinal) event.preventDefault();
  });

  let typing;
  const find = () => {
    history.replaceState(null, "", `${here}?${query({ find: filter.value.trim() })}`);
    htmx.ajax("GET", `${here}/tree?${query({})}`, { target: "#tree", swap: "innerHTML" });
  };
  filter.addEventListener("input", () => {
    clearTimeout(typing);
    typing = setTimeout(find, 200);
  });
  filter.form.addEventListener("submit", (event) => {
    event.preventDefault();
    find();
  });
  filter.addEventListener("keydown", (event) => {
    if (event.key === "ArrowDown") rows()[0]?.focus();
  });
})();
