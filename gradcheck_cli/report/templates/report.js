"use strict";
(() => {
  const data = JSON.parse(document.getElementById("data").textContent);
  const tip = document.getElementById("tip");
  const said = document.getElementById("said");
  const all = (selector, root = document) => [...root.querySelectorAll(selector)];
  const make = (name, text = "", kind = "") => {
    const element = document.createElement(name);
    element.textContent = text;
    if (kind) element.className = kind;
    return element;
  };

  // Light and dark: as the system has it, until the button says otherwise; nothing is kept.
  const theme = document.getElementById("theme");
  const system = matchMedia("(prefers-color-scheme: dark)");
  let chosen = null;
  const showTheme = () => theme.setAttribute("aria-pressed", String(chosen === null ? system.matches : chosen));
  theme.addEventListener("click", () => {
    chosen = !(chosen === null ? system.matches : chosen);
    document.documentElement.style.colorScheme = chosen ? "dark" : "light";
    showTheme();
  });
  system.addEventListener("change", showTheme);
  theme.hidden = false;
  showTheme();

  // What is pointed at, or reached with the arrow keys.
  const svg = (name) => document.createElementNS("http://www.w3.org/2000/svg", name);
  const clamp = (value, most) => Math.min(Math.max(value, 0), most);
  const show = (lines, x, y) => {
    tip.replaceChildren(make("strong", lines[0]), ...lines.slice(1).map((line) => make("div", line)));
    tip.hidden = false;
    const room = { x: innerWidth - tip.offsetWidth - 8, y: innerHeight - tip.offsetHeight - 8 };
    tip.style.left = `${clamp(x + 14, room.x)}px`;
    tip.style.top = `${y + 18 > room.y ? clamp(y - tip.offsetHeight - 12, room.y) : y + 18}px`;
  };
  const follow = (area, count, place, move, describe) => {
    const plots = all(".plot", area);
    let at = null;
    const leave = () => {
      tip.hidden = true;
      all(".cursor", area).forEach((cursor) => cursor.remove());
    };
    const point = (where, x, y) => {
      at = where;
      all(".cursor", area).forEach((cursor) => cursor.remove());
      plots.forEach((plot) => place(plot, where));
      show(describe(where), x, y);
    };
    area.addEventListener("pointermove", (event) => {
      const plot = event.target.closest(".plot");
      if (!plot) return leave();
      const box = plot.getBoundingClientRect();
      const share = { x: (event.clientX - box.left) / box.width, y: (event.clientY - box.top) / box.height };
      point(count(share), event.clientX, event.clientY);
    });
    area.addEventListener("pointerleave", leave);
    area.addEventListener("blur", leave);
    area.addEventListener("keydown", (event) => {
      if (event.key === "Escape") return leave();
      const next = move(at, event.key);
      if (next === null) return;
      event.preventDefault();
      const box = plots[0].getBoundingClientRect();
      point(next, box.left + box.width / 2, clamp(box.top, innerHeight - 120));
      said.textContent = describe(next).join(", ");
    });
    area.tabIndex = 0;
  };
  const step = (at, key, most) => {
    const moves = { ArrowRight: 1, ArrowUp: 1, ArrowLeft: -1, ArrowDown: -1, PageUp: 10, PageDown: -10 };
    if (key === "Home") return 0;
    if (key === "End") return most;
    return key in moves ? clamp((at === null ? -1 : at) + moves[key], most) : null;
  };
  const columns = (area, chart) => {
    const nearest = ({ x }) => {
      let best = 0;
      chart.at.forEach((percent, index) => {
        if (Math.abs(percent - 100 * x) < Math.abs(chart.at[best] - 100 * x)) best = index;
      });
      return best;
    };
    const place = (plot, index) => {
      const line = svg("line");
      line.setAttribute("class", "cursor");
      line.setAttribute("x1", `${chart.at[index]}%`);
      line.setAttribute("x2", `${chart.at[index]}%`);
      line.setAttribute("y2", "100%");
      plot.append(line);
    };
    const rows = (index) => chart.rows.filter((row) => row.values[index] !== "");
    const describe = (index) => {
      const lines = [chart.labels[index], ...rows(index).map((row) => `${row.name}: ${row.values[index]}`)];
      area.setAttribute("aria-valuenow", index);
      area.setAttribute("aria-valuetext", lines.join(", "));
      return lines;
    };
    area.setAttribute("role", "slider");
    area.setAttribute("aria-valuemin", 0);
    area.setAttribute("aria-valuemax", chart.at.length - 1);
    area.setAttribute("aria-valuenow", 0);
    area.setAttribute("aria-valuetext", chart.labels[0]);
    follow(area, nearest, place, (at, key) => step(at, key, chart.at.length - 1), describe);
  };
  const cells = (area, chart) => {
    const bytes = Uint8Array.from(atob(chart.cells), (sign) => sign.charCodeAt(0));
    const codes = new DataView(bytes.buffer);
    const [height, width] = [chart.rows.length, chart.labels.length];
    const find = ({ x, y }) => ({
      row: clamp(Math.floor(y * height), height - 1),
      column: clamp(Math.floor(x * width), width - 1),
    });
    const tell = ({ row, column }) => {
      const code = codes.getUint16(2 * (row * width + column), true);
      if (code < chart.first) return chart.words[code];
      const log = chart.low + ((code - chart.first) / (chart.levels - 1)) * (chart.high - chart.low);
      return `gradient RMS ${(10 ** log).toExponential(1).replace(/e([+-])(\d)$/, "e$10$2")}`;
    };
    const place = (plot, { row, column }) => {
      const box = svg("rect");
      box.setAttribute("class", "cursor");
      box.setAttribute("x", `${(100 * column) / width}%`);
      box.setAttribute("width", `${100 / width}%`);
      box.setAttribute("y", `${(100 * row) / height}%`);
      box.setAttribute("height", `${100 / height}%`);
      plot.append(box);
    };
    const move = (at, key) => {
      const moves = { ArrowRight: [0, 1], ArrowLeft: [0, -1], ArrowDown: [1, 0], ArrowUp: [-1, 0] };
      if (!(key in moves)) return null;
      const from = at || { row: 0, column: -moves[key][1] };
      const [down, right] = moves[key];
      return { row: clamp(from.row + down, height - 1), column: clamp(from.column + right, width - 1) };
    };
    area.setAttribute("role", "application");
    area.setAttribute("aria-roledescription", "heat map, moved through with the arrow keys");
    follow(area, find, place, move, (at) => [chart.rows[at.row], chart.labels[at.column], tell(at)]);
  };
  all("[data-chart]").forEach((area) => {
    (area.dataset.kind === "cells" ? cells : columns)(area, data[area.dataset.chart]);
  });

  // Chips: what is pressed is shown.
  const pressed = (chip) => chip.getAttribute("aria-pressed") === "true";
  const toggle = (chip) => chip.setAttribute("aria-pressed", String(!pressed(chip)));
  all("[data-findings]").forEach((group) => {
    const section = document.getElementById(group.dataset.findings);
    const chips = all("button", group);
    group.addEventListener("click", (event) => {
      const chip = event.target.closest("button");
      if (!chip) return;
      toggle(chip);
      const wanted = new Set(chips.filter(pressed).map((one) => one.dataset.severity));
      all(".finding", section).forEach((card) => (card.hidden = !wanted.has(card.dataset.severity)));
      all(".explains", section).forEach((line) => (line.hidden = !line.nextElementSibling.querySelector(".finding:not([hidden])")));
    });
  });

  // The table of layers.
  const order = { number: (a, b) => a - b, text: (a, b) => a.localeCompare(b, "en", { numeric: true }) };
  all("[data-table]").forEach((table) => {
    const tools = document.querySelector(`[data-tools="${table.dataset.table}"]`);
    const [search, count, foldAll] = ["filter", "count", "fold-all"].map((name) => tools.querySelector(`[data-${name}]`));
    const chips = all("[data-status]", tools);
    const bodies = all("tbody", table);
    const home = bodies.map((body) => [body, all("tr.layer", body)]);
    const rows = home.flatMap(([, members]) => members);
    const headings = all("thead th", table);
    const flat = table.createTBody();
    const worth = new Map(chips.map((chip, index) => [chip.dataset.status, index]));
    let sorted = false;

    const refresh = () => {
      const text = search.value.trim().toLowerCase();
      const wanted = new Set(chips.filter(pressed).map((chip) => chip.dataset.status));
      const filtering = text !== "" || wanted.size < chips.length;
      const shown = rows.filter((row) => {
        const words = `${row.cells[1].textContent} ${row.cells[2].textContent}`.toLowerCase();
        const fits = wanted.has(row.dataset.status) && words.includes(text);
        const folded = !filtering && !sorted && row.parentElement.dataset.folded === "true";
        row.hidden = !fits || folded;
        return fits;
      });
      bodies.filter((body) => "block" in body.dataset).forEach((body) => {
        body.querySelector("tr.block").hidden = sorted || filtering;
        body.querySelector(".fold").setAttribute("aria-expanded", String(body.dataset.folded !== "true"));
      });
      count.textContent = filtering ? `${shown.length} of ${rows.length} layers` : "";
      foldAll.disabled = sorted || filtering;
      const blocks = bodies.filter((body) => "block" in body.dataset);
      foldAll.hidden = !blocks.length;
      foldAll.setAttribute("aria-pressed", String(blocks.every((body) => body.dataset.folded === "true")));
    };
    const sort = (index) => {
      const heading = headings[index];
      const down = heading.getAttribute("aria-sort") === "ascending";
      headings.forEach((other) => other.removeAttribute("aria-sort"));
      heading.setAttribute("aria-sort", down ? "descending" : "ascending");
      sorted = index !== 0 || down;
      if (!sorted) return home.forEach(([body, members]) => body.append(...members));
      const kind = heading.dataset.sort;
      const key = (row) => {
        const cell = row.cells[index];
        if (kind === "number") return cell.dataset.value === "" ? NaN : Number(cell.dataset.value.replace("inf", "Infinity"));
        return kind === "status" ? worth.get(row.dataset.status) : cell.textContent;
      };
      const compare = order[kind] || order.number;
      const keyed = rows.map((row) => [key(row), row]);
      keyed.sort(([a], [b]) => {
        const missing = Number(Number.isNaN(a)) - Number(Number.isNaN(b)); // what is missing comes last either way
        return missing || (Number.isNaN(a) ? 0 : (down ? -1 : 1) * compare(a, b));
      });
      flat.append(...keyed.map(([, row]) => row));
    };
    headings.forEach((heading, index) => {
      const button = make("button", heading.textContent);
      button.type = "button";
      heading.replaceChildren(button);
      button.addEventListener("click", () => {
        sort(index);
        refresh();
      });
    });
    search.addEventListener("input", refresh);
    tools.addEventListener("click", (event) => {
      const chip = event.target.closest("[data-status]");
      if (chip) toggle(chip);
      if (event.target === foldAll) {
        const fold = foldAll.getAttribute("aria-pressed") !== "true";
        bodies.forEach((body) => "block" in body.dataset && (body.dataset.folded = String(fold)));
      }
      refresh();
    });
    table.addEventListener("click", (event) => {
      const button = event.target.closest(".fold");
      if (!button) return;
      const body = button.closest("tbody");
      body.dataset.folded = String(body.dataset.folded !== "true");
      refresh();
    });
    tools.hidden = false;
    refresh();
    addEventListener("beforeprint", () => rows.forEach((row) => (row.hidden = false)));
    addEventListener("afterprint", refresh);
  });

  // A link to a rule opens its documentation.
  const reveal = () => {
    const target = location.hash && document.getElementById(decodeURIComponent(location.hash.slice(1)));
    if (target instanceof HTMLDetailsElement) target.open = true;
    if (target) target.hidden = false;
  };
  addEventListener("hashchange", reveal);
  document.addEventListener("click", (event) => {
    const link = event.target.closest('a[href^="#"]');
    if (link && link.hash === location.hash) reveal();
  });
  reveal();

  // On paper there is nothing to click: evidence is open, the documentation of rules stays as it is.
  let opened = [];
  addEventListener("beforeprint", () => {
    opened = all("details:not([open])").filter((one) => !one.closest(".rules"));
    opened.forEach((one) => (one.open = true));
  });
  addEventListener("afterprint", () => opened.forEach((one) => (one.open = false)));

  if (navigator.clipboard) {
    all("pre.code").forEach((code) => {
      const frame = make("div", "", "with-copy");
      const button = make("button", "Copy", "copy");
      button.type = "button";
      button.addEventListener("click", async () => {
        await navigator.clipboard.writeText(code.textContent);
        button.textContent = "Copied";
        setTimeout(() => (button.textContent = "Copy"), 1500);
      });
      code.replaceWith(frame);
      frame.append(code, button);
    });
  }
})();
