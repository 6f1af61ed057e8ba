// The stepper on the page of an optimizer. It computes with the JavaScript port (optimizers.js), element by element in
// float32, and shows what each step leaves. A link's fragment, #live&w=1&g=1,-0.5&eps=1e-8, carries the settings.

"use strict";

(() => {
  const { optimizers, init, step, toBits } = mlxOptimizers;
  const MOST = 200; // steps: more than a reader reads, and drawn at once

  /** The shortest decimal that is this float32 number and no other. */
  function shortest(x) {
    if (!Number.isFinite(x) || x === 0) return Object.is(x, -0) ? "-0" : String(x);
    for (let digits = 1; digits < 9; digits++) {
      const text = x.toPrecision(digits);
      if (Math.fround(Number(text)) === x) return String(Number(text));
    }
    return String(Number(x.toPrecision(9)));
  }

  function element(tag, attributes = {}, ...children) {
    const svg = ["svg", "line", "text", "polyline", "circle", "title"].includes(tag);
    const made = svg ? document.createElementNS("http://www.w3.org/2000/svg", tag) : document.createElement(tag);
    for (const [name, value] of Object.entries(attributes)) made.setAttribute(name, value);
    made.append(...children);
    return made;
  }

  /** The numbers of a text, or an Error that says what the field takes. */
  function numbers(text, { name, words, count, low, high, above, below }) {
    const parts = text.split(/[\s,]+/).filter(Boolean);
    const values = parts.map(Number);
    const fits = (x) =>
      Number.isFinite(x) && !(x < low) && !(x > high) && !(x <= above) && !(x >= below);
    if (!values.length || (count && values.length !== count) || !values.every(fits)) {
      throw new Error(`${name} must be ${words}, not ${text.trim() || "nothing"}`);
    }
    return values;
  }

  function start(place) {
    const optimizer = place.dataset.optimizer;
    const { slots } = optimizers[optimizer];
    const own = JSON.parse(place.dataset.fields);
    const specs = [
      { name: "w", value: "1", count: 1, words: "a number", label: "w, the parameter at first" },
      { name: "g", value: "1, -0.5, 0.25", words: "numbers", label: "g, the gradients, used in turn" },
      { name: "steps", value: "12", count: 1, words: `a whole number from 1 to ${MOST}`, low: 1, high: MOST },
      ...own,
    ];
    const slope = { name: "slope", value: "false", switch: true, label: "g = w instead, the slope of ½w²" };
    specs.splice(2, 0, slope);
    const inputs = {};
    const form = element("form", { class: "live-form", "aria-label": `Settings of ${optimizer}` });
    for (const spec of specs) {
      const id = `live-${spec.name}`;
      const label = element("label", { for: id }, spec.label ?? spec.name);
      const kind = spec.switch ? { type: "checkbox" } : { type: "text", spellcheck: "false", autocomplete: "off" };
      const input = element("input", { id, name: spec.name, "aria-describedby": "live-message", ...kind });
      inputs[spec.name] = input;
      const parts = spec.switch ? [input, label] : [label, input];
      form.append(element("div", { class: spec.switch ? "live-switch" : "live-field" }, ...parts));
    }
    const reset = element("button", { type: "button", class: "live-button" }, "Defaults");
    const link = element("a", { class: "live-link", href: "#live" }, "Link to these settings");
    form.append(element("div", { class: "live-actions" }, reset, link));
    const message = element("p", { id: "live-message", class: "live-message", role: "status" });
    const picture = element("figure", { class: "live-path" });
    const chosen = element("input", { id: "live-step", type: "range", min: "0", step: "1", value: "1" });
    const heading = element("label", { for: "live-step" });
    const detail = element("dl", { class: "live-bits" });
    const table = element("table", { class: "live-table" });
    const wide = element("div", { class: "wide", tabindex: "0", role: "region", "aria-label": "Every step" }, table);
    place.replaceChildren(
      form, message, picture, element("div", { class: "live-chosen" }, heading, chosen), detail, wide,
    );

    let rows = [];

    function settings() {
      const read = {};
      for (const spec of specs) {
        const input = inputs[spec.name];
        input.removeAttribute("aria-invalid");
        try {
          read[spec.name] = spec.switch ? input.checked : numbers(input.value, spec);
        } catch (error) {
          input.setAttribute("aria-invalid", "true");
          throw error;
        }
      }
      if (!Number.isInteger(read.steps[0])) throw new Error(`steps must be ${specs[3].words}`);
      if (read.nesterov && (read.momentum[0] === 0 || read.dampening[0] !== 0)) {
        throw new Error("nesterov needs momentum above 0 and dampening 0");
      }
      if (read.learning_rate.length > 1 && read.learning_rate.length < read.steps[0]) {
        throw new Error(`learning_rate has ${read.learning_rate.length} numbers for ${read.steps[0]} steps`);
      }
      return read;
    }

    function computed({ w: [first], g, slope, steps: [steps], ...read }) {
      const given = Object.fromEntries(
        own.map(({ name, count }) => [name, count === 1 ? read[name][0] : read[name]]),
      );
      let state = { w: Math.fround(first), ...init(optimizer) };
      const out = [{ t: 0, ...state }];
      for (let t = 1; t <= steps; t++) {
        const rates = read.learning_rate;
        const h = { ...given, learning_rate: rates[rates.length > 1 ? t - 1 : 0] };
        const gradient = slope ? state.w : Math.fround(g[(t - 1) % g.length]);
        state = step(optimizer, h, state.w, gradient, state, t);
        out.push({ t, g: gradient, ...state });
      }
      return out;
    }

    function showTable() {
      const letters = ["w", ...slots];
      const head = element("tr", {}, ...["t", "g", ...letters.flatMap((x) => [x, `bits of ${x}`])].map(
        (text) => element("th", { scope: "col" }, text),
      ));
      const body = rows.map((row) => element("tr", {},
        element("th", { scope: "row" }, String(row.t)),
        element("td", {}, row.t ? shortest(row.g) : "–"),
        ...letters.flatMap((x) => [
          element("td", {}, shortest(row[x])),
          element("td", { class: "bits", "data-of": x }, toBits(row[x])),
        ]),
      ));
      table.replaceChildren(element("thead", {}, head), element("tbody", {}, ...body));
    }

    function showPath() {
      const [width, height, left, right, top, bottom] = [640, 240, 84, 12, 12, 30];
      const finite = rows.map((row) => row.w).filter(Number.isFinite);
      let [low, high] = [Math.min(...finite), Math.max(...finite)];
      if (!(high > low)) [low, high] = [low - 1, high + 1];
      const x = (t) => left + ((width - left - right) * t) / (rows.length - 1);
      const y = (w) => top + ((height - top - bottom) * (high - w)) / (high - low);
      const svg = element("svg", {
        viewBox: `0 0 ${width} ${height}`, role: "img",
        "aria-label": `w over ${rows.length - 1} steps, from ${shortest(rows[0].w)} to ${shortest(rows.at(-1).w)}`,
      });
      for (const level of [low, (low + high) / 2, high]) {
        svg.append(element("line", { class: "grid", x1: left, x2: width - right, y1: y(level), y2: y(level) }));
        svg.append(element("text", { x: left - 8, y: y(level) + 4, "text-anchor": "end" }, String(Number(level.toPrecision(4)))));
      }
      const every = Math.ceil((rows.length - 1) / 12);
      for (let t = 0; t < rows.length; t += every) {
        svg.append(element("text", { x: x(t), y: height - 8, "text-anchor": "middle" }, String(t)));
      }
      const drawn = rows.filter((row) => Number.isFinite(row.w));
      svg.append(element("polyline", { class: "path", points: drawn.map((row) => `${x(row.t)},${y(row.w)}`).join(" ") }));
      for (const row of drawn) {
        const name = element("title", {}, `t = ${row.t}, w = ${shortest(row.w)}`);
        svg.append(element("circle", { class: "point", "data-t": row.t, cx: x(row.t), cy: y(row.w), r: 3.5 }, name));
      }
      picture.replaceChildren(svg, element("figcaption", {}, "w after each step t."));
    }

    function showStep() {
      const t = Math.min(Number(chosen.value), rows.length - 1);
      heading.textContent = `Step ${t} of ${rows.length - 1}`;
      detail.replaceChildren(...["w", ...slots].flatMap((letter) => {
        const word = parseInt(toBits(rows[t][letter]), 16).toString(2).padStart(32, "0");
        const part = (kind, from, to) => element("span", { class: kind, title: kind }, word.slice(from, to));
        return [
          element("dt", {}, `${letter} = ${shortest(rows[t][letter])}`),
          element("dd", {}, part("sign", 0, 1), " ", part("exponent", 1, 9), " ", part("fraction", 9, 32)),
        ];
      }));
      table.querySelectorAll("tbody tr").forEach((row, index) => row.classList.toggle("chosen", index === t));
      picture.querySelectorAll("circle").forEach((point) => {
        point.classList.toggle("chosen", point.dataset.t === String(t));
      });
    }

    function fragment() {
      const changed = specs
        .map((spec) => [spec.name, spec.switch ? String(inputs[spec.name].checked) : inputs[spec.name].value.trim()])
        .filter(([name, value]) => value !== specs.find((spec) => spec.name === name).value);
      return `#live${changed.map(([name, value]) => `&${name}=${encodeURIComponent(value)}`).join("")}`;
    }

    function show() {
      link.href = fragment();
      try {
        rows = computed(settings());
      } catch (error) {
        message.textContent = error.message;
        return;
      }
      message.textContent = "";
      chosen.max = String(rows.length - 1);
      showTable();
      showPath();
      showStep();
    }

    /** Take the settings from a link; what it does not name is at its default. */
    function take(hash) {
      const given = new URLSearchParams(hash.slice(1));
      for (const spec of specs) {
        const value = given.get(spec.name) ?? spec.value;
        if (spec.switch) inputs[spec.name].checked = value === "true";
        else inputs[spec.name].value = value;
      }
      show();
    }

    const carried = () => location.hash === "#live" || location.hash.startsWith("#live&");
    function arrive() {
      if (!carried()) return;
      take(location.hash);
      place.scrollIntoView(); // below the header, as site.css says
    }
    form.addEventListener("input", show);
    form.addEventListener("submit", (event) => event.preventDefault());
    reset.addEventListener("click", () => take(""));
    chosen.addEventListener("input", showStep);
    window.addEventListener("hashchange", arrive);
    take("");
    arrive();
  }

  document.querySelectorAll(".live").forEach(start);
})();
