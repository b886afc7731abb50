// Everything can be read without this: it only adds a field that filters the table of files.
const table = document.querySelector("table[data-searchable]");
if (table) {
  const field = document.createElement("input");
  field.type = "search";
  field.placeholder = "Search names and reasons";
  field.setAttribute("aria-label", field.placeholder);
  field.addEventListener("input", () => {
    const wanted = field.value.toLowerCase();
    for (const row of table.tBodies[0].rows) {
      row.hidden = !row.textContent.toLowerCase().includes(wanted);
    }
  });
  table.before(field);
}
