// The editor of a prompt: rows of variables are added here; what is wrong with them, the gateway says.
"use strict";

(() => {
  const form = document.getElementById("edit");
  if (!form) return;
  const rows = document.getElementById("variables");
  const add = document.getElementById("add");
  const model = document.getElementById("variable").content.firstElementChild;
  const most = Number(rows.dataset.max);

  const addRow = (name) => {
    let row = [...rows.children].find((old) => old.querySelector("[name^=name-]").value === "");
    if (!row) {
      if (rows.children.length >= most) return;
      row = model.cloneNode(true);
      const number = rows.children.length;
      for (const place of row.querySelectorAll("[id], [for], [name]"))
        for (const attribute of ["id", "for", "name"])
          if (place.hasAttribute(attribute)) place.setAttribute(attribute, place.getAttribute(attribute).replace(/99$/, number));
      row.querySelector("legend").textContent = `Variable ${number}`;
      rows.append(row);
    }
    const field = row.querySelector("[name^=name-]");
    field.value = name;
    (name ? row.querySelector("[name^=default-]") : field).focus();
    form.dispatchEvent(new Event("input", { bubbles: true }));
  };
  add.hidden = false;
  add.addEventListener("click", () => addRow(""));
  form.addEventListener("click", (event) => {
    const name = event.target.closest("[data-declare]")?.dataset.declare;
    if (name) addRow(name);
  });
})();
