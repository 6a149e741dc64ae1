// Tables that sort by their headers and download as CSV. Without it the page is whole, only still.
(function () {
  "use strict";

  const NUMBER = new RegExp(
    "^[<>\\u2264\\u2265~]?([-+\\u2212]?(?:\\d[\\d,]*)?\\.?\\d+(?:e[-+]?\\d+)?)" + // 1,234.5e-6
    "(?:\\u00b1[\\d.,]+)?" +                                                     // ±0.3
    "(mm2|[^\\d\\[\\]()]*)" +                                                // a unit
    "(?:\\[[^\\]]*\\])?$", "i");                                                 // [low, high]
  const NOTHING = /^(|-|\u2013|\u2014|n\/a|none)$/i;
  const TURNS = { none: "ascending", ascending: "descending", descending: "none" };
  const COLLATOR = new Intl.Collator("en", { numeric: true, sensitivity: "base" });

  function textOf(cell) {
    let shown = cell;
    if (cell.querySelector("br")) {
      shown = cell.cloneNode(true);
      shown.querySelectorAll("br").forEach((line) => line.replaceWith(" "));
    }
    return shown.textContent.replace(/\s+/g, " ").trim();
  }

  // The number of a cell and its unit, or null where it is no number.
  function numberOf(text) {
    const found = NUMBER.exec(text.replace(/\s/g, ""));
    if (!found) return null;
    return { value: Number(found[1].replace(/,/g, "").replace("\u2212", "-")), unit: found[2] };
  }

  // What to compare in a column: numbers if every cell that says something is one, in one unit.
  function keysOf(texts) {
    const numbers = texts.map(numberOf);
    const said = numbers.filter((_, row) => !NOTHING.test(texts[row]));
    const units = new Set(said.map((number) => number && number.unit));
    const numeric = said.every((number) => number !== null) && units.size <= 1;
    return texts.map((text, row) => (
      NOTHING.test(text) ? null : numeric ? numbers[row].value : text
    ));
  }

  function compare(first, second) {
    return typeof first === "number" ? first - second : COLLATOR.compare(first, second);
  }

  // The head as rows of columns: each place holds the cell that covers it.
  function gridOf(head) {
    const grid = Array.from(head.rows, () => []);
    Array.from(head.rows).forEach((row, top) => {
      for (const cell of row.cells) {
        let left = 0;
        while (grid[top][left]) left += 1;
        for (let down = top; down < top + cell.rowSpan && down < grid.length; down += 1)
          for (let right = left; right < left + cell.colSpan; right += 1) grid[down][right] = cell;
      }
    });
    return grid;
  }

  function isPlain(body) {
    return Array.from(body.rows).every((row) => (
      Array.from(row.cells).every((cell) => cell.rowSpan === 1 && cell.colSpan === 1)
    ));
  }

  function sort(body, original, column, direction) {
    let rows = original;
    if (direction !== "none") {
      const keys = keysOf(original.map((row) => textOf(row.cells[column])));
      const sign = direction === "ascending" ? 1 : -1;
      const order = original.map((_, number) => number).sort((first, second) => {
        const [a, b] = [keys[first], keys[second]];
        if (a === null || b === null) return (a === null) - (b === null) || first - second;
        return sign * compare(a, b) || first - second;
      });
      rows = order.map((number) => original[number]);
    }
    body.append(...rows);
  }

  function makeSortable(table) {
    const body = table.tBodies[0];
    const original = Array.from(body.rows);
    const grid = gridOf(table.tHead);
    grid[grid.length - 1].forEach((header, column) => {
      if (header.colSpan > 1) return;
      const button = document.createElement("button");
      button.type = "button";
      button.append(...header.childNodes);
      header.append(button);
      header.setAttribute("aria-sort", "none");
      button.addEventListener("click", () => {
        const direction = TURNS[header.getAttribute("aria-sort")];
        table.tHead.querySelectorAll("[aria-sort]").forEach((other) => (
          other.setAttribute("aria-sort", "none")
        ));
        header.setAttribute("aria-sort", direction);
        sort(body, original, column, direction);
      });
    });
  }

  // One line of headings: those of groups stand before those below them.
  function headings(table) {
    const grid = gridOf(table.tHead);
    return grid[grid.length - 1].map((_, column) => (
      Array.from(new Set(grid.map((row) => row[column])), textOf).filter(Boolean).join(" / ")
    ));
  }

  function csvOf(table) {
    const lines = table.tHead ? [headings(table)] : [];
    for (const body of table.tBodies)
      for (const row of body.rows) lines.push(Array.from(row.cells, textOf));
    const quoted = (text) => (/[",\n]/.test(text) ? `"${text.replace(/"/g, '""')}"` : text);
    return lines.map((line) => line.map(quoted).join(",") + "\n").join("");
  }

  function nameOf(table, number) {
    const region = table.closest("[aria-label]");
    const text = region ? region.getAttribute("aria-label") : `Table ${number + 1}`;
    return text.toLowerCase().replace(/[^a-z0-9]+/g, "-").replace(/^-|-$/g, "");
  }

  function addDownload(table, number) {
    const button = document.createElement("button");
    button.type = "button";
    button.textContent = "Download as CSV";
    button.addEventListener("click", () => {
      const link = document.createElement("a");
      link.href = URL.createObjectURL(new Blob([csvOf(table)], { type: "text/csv" }));
      link.download = `${nameOf(table, number)}.csv`;
      link.click();
      setTimeout(() => URL.revokeObjectURL(link.href), 10000);
    });
    const line = document.createElement("p");
    line.className = "tools";
    line.append(button);
    (table.closest(".wide") || table).after(line);
  }

  document.querySelectorAll("table").forEach((table, number) => {
    if (table.tHead && table.tBodies.length === 1 && isPlain(table.tBodies[0])) makeSortable(table);
    addDownload(table, number);
  });
})();
