// Tables: sorted, filtered, shown in part, saved. The values are in the page, column by column.
"use strict";
(() => {
  const SHOWN_FIRST = 50;
  const LONG = 100;
  const SHOWN_MORE = 10000;
  const LONGEST_WORD = 40;
  const TRUTH = new Map([[true, "yes"], [false, "no"]]);
  const byName = new Intl.Collator("en", { numeric: true });

  // Formatters are slow to make and quick to use: one for each number of decimals.
  const formats = new Map();
  const grouped = (value, decimals) => {
    if (!formats.has(decimals)) {
      const digits = { minimumFractionDigits: decimals, maximumFractionDigits: decimals };
      formats.set(decimals, new Intl.NumberFormat("en", digits));
    }
    return formats.get(decimals).format(value);
  };

  const readJson = (element) => JSON.parse(element.textContent);

  // What is infinite and words that repeat are written in a way of their own.
  const decode = (column) =>
    Array.isArray(column)
      ? column.map((value) => (typeof value === "string" ? Number(value) : value))
      : column.at.map((place) => (place === null ? null : column.words[place]));

  const written = (value, column) => {
    if (value === null) return "";
    if (column.kind === "truth") return TRUTH.get(value);
    if (column.kind === "text") return value;
    if (!Number.isFinite(value)) return value > 0 ? "∞" : "−∞";
    if (column.kind === "integer") return withMinus(grouped(value, 0));
    return withMinus(numeral(value, column.decimals));
  };

  // As many decimals as the column has, or four digits where a column's numbers are of different sizes.
  const numeral = (value, decimals) => {
    const size = Math.abs(value);
    if (decimals === null) {
      if (size === 0) return "0";
      if (size >= 1000) return grouped(value, 0);
      if (size < 0.0001) return value.toExponential(1);
      return size >= 1 ? value.toPrecision(4) : value.toFixed(4);
    }
    const fixed = grouped(value, decimals);
    return size > 0 && !/[1-9]/.test(fixed) ? value.toExponential(1) : fixed;
  };

  const withMinus = (text) => text.replaceAll("-", "−");

  const compare = (one, other, kind) =>
    kind === "text" ? byName.compare(one, other) : one < other ? -1 : one > other ? 1 : 0;

  const csvCell = (value) => {
    if (value === null) return "";
    const text = String(value);
    return text === "" || /[",\r\n]/.test(text) ? `"${text.replaceAll('"', '""')}"` : text;
  };

  const setUp = (section, columns, values, nRows) => {
    const body = section.querySelector("tbody");
    const heads = [...section.querySelectorAll("thead th")];
    const output = section.querySelector("output");
    const showAll = section.querySelector("button.all");
    const filter = section.querySelector("input");
    const rows = new Array(nRows);
    const everyRow = Array.from({ length: nRows }, (_, row) => row);
    let order = everyRow;
    let sorted = null;
    let most = nRows <= LONG ? nRows : SHOWN_FIRST;

    const cell = (column, row) => {
      const value = values[column.name][row];
      const place = document.createElement("td");
      place.className = column.kind;
      const text = written(value, column);
      if (column.kind === "text" && text.length > LONGEST_WORD) {
        const passage = document.createElement("div");
        passage.className = "passage";
        passage.textContent = text;
        place.append(passage);
      } else {
        place.textContent = text;
        if (column.kind === "text") place.classList.add("word");
      }
      if (column.kind === "number" && value !== null) place.title = String(value);
      if (column.kind === "truth" && column.name === "met" && value === false) place.classList.add("missed");
      const lo = column.lo ? values[column.lo][row] : null;
      if (lo !== null && value !== null) {
        const hi = values[column.hi][row];
        const interval = document.createElement("span");
        interval.className = "interval";
        interval.textContent = `${written(lo, column)} to ${written(hi, column)}`;
        interval.title = `${lo} to ${hi}`;
        place.append(interval);
      }
      return place;
    };

    // A row is made when it is first shown, and then only moved.
    const rowElement = (row) => {
      if (!rows[row]) {
        rows[row] = document.createElement("tr");
        rows[row].append(...columns.map((column) => cell(column, row)));
      }
      return rows[row];
    };

    const show = () => {
      const shown = order.slice(0, most);
      const part = document.createDocumentFragment();
      for (const row of shown) part.append(rowElement(row));
      body.replaceChildren(part);
      showAll.hidden = shown.length === order.length;
      const count = (number) => grouped(number, 0);
      const isLast = order.length <= most + SHOWN_MORE;
      showAll.textContent = isLast ? `Show all ${count(order.length)} rows` : `Show ${count(SHOWN_MORE)} more rows`;
      const words = [];
      if (shown.length < order.length) words.push(`first ${count(shown.length)} of`);
      words.push(`${count(order.length)} ${order.length === 1 ? "row" : "rows"}`);
      if (order.length < nRows) words.push(`of ${count(nRows)} that the filter leaves`);
      output.textContent = words.join(" ");
    };

    const matches = (row, word) => {
      const colon = word.indexOf(":");
      const named = colon > 0 && columns.find((column) => column.name.toLowerCase() === word.slice(0, colon));
      const wanted = named ? word.slice(colon + 1) : word;
      return (named ? [named] : columns).some((column) => {
        const value = values[column.name][row];
        if (value === null) return false;
        const text = written(value, column).toLowerCase().replaceAll("−", "-");
        if (column.kind === "text") return text.includes(wanted);
        if (column.kind === "number") return wanted !== "" && text.startsWith(wanted) && /[.∞]/.test(wanted);
        return text === wanted || String(value) === wanted;
      });
    };

    const arrange = () => {
      const words = filter.value.toLowerCase().split(/\s+/).filter(Boolean);
      order = words.length ? everyRow.filter((row) => words.every((word) => matches(row, word))) : everyRow;
      if (sorted) {
        const { column, sign } = sorted;
        const of = values[column.name];
        // What has no value comes last in either order; of equal ones, the first stays first.
        order = [...order].sort((one, other) => {
          if (of[one] === null || of[other] === null) return (of[one] === null) - (of[other] === null);
          return sign * compare(of[one], of[other], column.kind);
        });
      }
      show();
    };

    const sortBy = (place) => {
      const before = heads[place].getAttribute("aria-sort");
      const now = { none: "ascending", ascending: "descending", descending: "none" }[before];
      for (const head of heads) head.setAttribute("aria-sort", "none");
      heads[place].setAttribute("aria-sort", now);
      sorted = now === "none" ? null : { column: columns[place], sign: now === "ascending" ? 1 : -1 };
      arrange();
    };

    const save = () => {
      const names = Object.keys(values);
      const lines = [names, ...order.map((row) => names.map((name) => values[name][row]))];
      const text = lines.map((line) => line.map(csvCell).join(",") + "\n").join("");
      const link = document.createElement("a");
      link.href = URL.createObjectURL(new Blob([text], { type: "text/csv" }));
      link.download = `${section.dataset.values}.csv`;
      link.click();
      setTimeout(() => URL.revokeObjectURL(link.href), 1000);
    };

    heads.forEach((head, place) => head.querySelector("button").addEventListener("click", () => sortBy(place)));
    filter.addEventListener("input", arrange);
    section.querySelector("button.save").addEventListener("click", save);
    showAll.addEventListener("click", () => {
      most += SHOWN_MORE;
      show();
    });
    show();
  };

  const decoded = new Map();
  for (const section of document.querySelectorAll("section.table")) {
    const name = section.dataset.values;
    if (!decoded.has(name)) {
      const raw = readJson(document.getElementById(`values-${name}`));
      decoded.set(name, Object.fromEntries(Object.entries(raw).map(([key, column]) => [key, decode(column)])));
    }
    const values = decoded.get(name);
    const nRows = Object.values(values)[0]?.length ?? 0;
    setUp(section, readJson(section.querySelector("script")), values, nRows);
  }
})();
