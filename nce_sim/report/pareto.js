// The interactive Pareto plot: draws the points that the page holds as JSON, and what is chosen.
(function () {
  "use strict";

  const SVG = "http://www.w3.org/2000/svg";
  const MOST_BARS = 3000;
  const MARGIN = { left: 64, right: 16, top: 14, bottom: 48 };
  const SHAPES = {
    circle: (r) => `m${-r},0a${r},${r} 0 1,0 ${2 * r},0a${r},${r} 0 1,0 ${-2 * r},0z`,
    square: (r) => `m${-r},${-r}h${2 * r}v${2 * r}h${-2 * r}z`,
    triangle: (r) => `m0,${-1.2 * r}l${1.2 * r},${2.1 * r}h${-2.4 * r}z`,
    down: (r) => `m0,${1.2 * r}l${1.2 * r},${-2.1 * r}h${-2.4 * r}z`,
    diamond: (r) => `m0,${-1.4 * r}l${1.2 * r},${1.4 * r}l${-1.2 * r},${1.4 * r}`
      + `l${-1.2 * r},${-1.4 * r}z`,
    plus: (r) => cross(r, 0),
    cross: (r) => cross(r, 45),
    star: (r) => star(r),
  };

  function turned(corners, degrees) {
    const [c, s] = [Math.cos(degrees * Math.PI / 180), Math.sin(degrees * Math.PI / 180)];
    let at = [0, 0];
    return corners.map(([x, y]) => {
      const to = [c * x - s * y, s * x + c * y];
      const step = `${(to[0] - at[0]).toFixed(2)},${(to[1] - at[1]).toFixed(2)}`;
      at = to;
      return step;
    });
  }

  function cross(r, degrees) {
    const [a, b] = [0.45 * r, 1.3 * r];
    const steps = turned([[-a, -b], [a, -b], [a, -a], [b, -a], [b, a], [a, a], [a, b], [-a, b],
      [-a, a], [-b, a], [-b, -a], [-a, -a]], degrees);
    return `m${steps.join("l")}z`;
  }

  function star(r) {
    const corners = Array.from({ length: 10 }, (_, number) => {
      const reach = number % 2 ? 0.6 * r : 1.4 * r;
      return [reach * Math.sin(number * Math.PI / 5), -reach * Math.cos(number * Math.PI / 5)];
    });
    return `m${turned(corners, 0).join("l")}z`;
  }

  function svg(name, attributes, text) {
    const element = document.createElementNS(SVG, name);
    for (const [key, value] of Object.entries(attributes)) element.setAttribute(key, value);
    if (text !== undefined) element.textContent = text;
    return element;
  }

  function html(name, attributes, ...children) {
    const element = document.createElement(name);
    for (const [key, value] of Object.entries(attributes)) element.setAttribute(key, value);
    element.append(...children);
    return element;
  }

  const place = document.getElementById("pareto");
  if (!place) return;
  const data = JSON.parse(document.getElementById("pareto-data").textContent);
  const axisOf = new Map(data.axes.map((axis) => [axis.name, axis]));
  const settingOf = new Map(data.settings.map((setting) => [setting.name, setting]));
  const count = data.axes[0].values.length;
  const chosen = { x: data.start.x, y: data.start.y, colour: data.start.colour, filters: {} };
  let selected = null;
  let focused = null;
  let points = [];

  const choices = html("div", { class: "choices" });
  const note = html("p", { class: "note", role: "status" });
  const drawing = svg("svg", { role: "group" });
  const legend = html("ul", { class: "legend" });
  const answer = html("p", { class: "note" });
  const tip = html("div", { class: "tip", hidden: "" });
  const plot = html("div", { class: "plot" }, choices, note, drawing, legend, answer, tip);
  place.append(plot);
  place.hidden = false;

  // Numbers and words.

  function numberText(axis, value) {
    return value.toLocaleString("en", {
      minimumFractionDigits: axis.digits, maximumFractionDigits: axis.digits,
    });
  }

  function measured(axis, point) {
    const value = axis.values[point];
    if (value === null) return "-";
    let text = numberText(axis, value) + (axis.unit ? ` ${axis.unit}` : "");
    if (axis.low && axis.low[point] !== null)
      text += ` [${numberText(axis, axis.low[point])}, ${numberText(axis, axis.high[point])}]`;
    return text;
  }

  function heading(axis) {
    return axis.unit ? `${axis.label} (${axis.unit})` : axis.label;
  }

  // Every name and number of a point: settings first. A setting that is also an axis stands once.
  function linesOf(point) {
    const settings = data.settings.map((each) => [each.label, each.values[each.of[point]]]);
    const measures = data.axes.filter((axis) => !settingOf.has(axis.name));
    return [...settings, ...measures.map((axis) => [axis.label, measured(axis, point)])];
  }

  // What is shown, and its front.

  function isShown(point) {
    return axisOf.get(chosen.x).values[point] !== null && axisOf.get(chosen.y).values[point] !== null
      && data.settings.every(({ name, of }) => (
        chosen.filters[name] === undefined || of[point] === chosen.filters[name]
      ));
  }

  function shownPoints() {
    return Array.from({ length: count }, (_, point) => point).filter(isShown);
  }

  // The points that no other shown point beats in both axes, along x; null where an axis has no
  // good end. Equal points all stay.
  function frontOf(shown, x, y) {
    if (!x.better || !y.better) return null;
    const worth = (axis, point) => (axis.better === "least" ? 1 : -1) * axis.values[point];
    const order = shown.slice().sort((a, b) => (
      worth(x, a) - worth(x, b) || worth(y, a) - worth(y, b)
    ));
    const front = [];
    for (const point of order) {
      const last = front[front.length - 1];
      const same = last !== undefined && worth(x, last) === worth(x, point)
        && worth(y, last) === worth(y, point);
      if (last === undefined || same || worth(y, point) < worth(y, last)) front.push(point);
    }
    return front;
  }

  // Scales.

  function niceStep(width, most) {
    const rough = width / most;
    const power = 10 ** Math.floor(Math.log10(rough));
    return power * [1, 2, 5, 10].find((step) => step * power >= rough * 0.999);
  }

  // The reach of an axis: its values, and of their bars as much as does not crowd the values.
  function extent(axis, shown, bars) {
    const most = (values) => values.reduce((a, b) => Math.max(a, b), -Infinity);
    const values = shown.map((point) => axis.values[point]);
    if (values.length === 0) return [0, 1];
    let [low, high] = [-most(values.map((value) => -value)), most(values)];
    const room = 0.25 * (high - low) || 0.25 * Math.abs(high) || 1;
    if (bars && axis.low) {
      const ends = shown.filter((point) => axis.low[point] !== null);
      const least = -most(ends.map((point) => -axis.low[point]));
      const greatest = most(ends.map((point) => axis.high[point]));
      low = Math.min(low, Math.max(least, low - room));
      high = Math.max(high, Math.min(greatest, high + room));
    }
    const margin = 0.05 * (high - low) || room;
    return [low - margin, high + margin];
  }

  function scaleOf(axis, shown, bars, from, to) {
    const [low, high] = extent(axis, shown, bars);
    const scale = (value) => from + Math.min(1, Math.max(0, (value - low) / (high - low))) * (to - from);
    const step = niceStep(high - low, Math.max(2, Math.abs(to - from) / 65));
    const digits = Math.max(0, -Math.floor(Math.log10(step) + 1e-9));
    scale.ticks = [];
    for (let k = Math.ceil(low / step); k * step <= high; k += 1) scale.ticks.push({
      at: scale(k * step),
      text: (k * step).toLocaleString("en", {
        minimumFractionDigits: digits, maximumFractionDigits: digits,
      }),
    });
    return scale;
  }

  // Drawing.

  function lookOf(point) {
    const setting = settingOf.get(chosen.colour);
    return setting ? setting.looks[setting.of[point]] : { colour: "#0072b2", shape: "circle" };
  }

  function drawFrame(width, height, x, y, across, up) {
    const [left, right] = [MARGIN.left, width - MARGIN.right];
    const [top, bottom] = [MARGIN.top, height - MARGIN.bottom];
    for (const { at, text } of across.ticks) {
      drawing.append(svg("path", { class: "grid", d: `M${at},${top}V${bottom}` }));
      drawing.append(svg("text", { x: at, y: bottom + 17, "text-anchor": "middle" }, text));
    }
    for (const { at, text } of up.ticks) {
      drawing.append(svg("path", { class: "grid", d: `M${left},${at}H${right}` }));
      drawing.append(svg("text", { x: left - 7, y: at + 4, "text-anchor": "end" }, text));
    }
    drawing.append(svg("path", { class: "frame", d: `M${left},${top}V${bottom}H${right}` }));
    drawing.append(svg("text", {
      x: (left + right) / 2, y: height - 8, "text-anchor": "middle",
    }, heading(x)));
    drawing.append(svg("text", {
      transform: `translate(14 ${(top + bottom) / 2}) rotate(-90)`, "text-anchor": "middle",
    }, heading(y)));
  }

  function drawBars(shown, x, y, across, up) {
    const lines = new Map();
    for (const point of shown) {
      const [px, py] = [across(x.values[point]), up(y.values[point])];
      let line = "";
      if (y.low && y.low[point] !== null)
        line += `M${px.toFixed(1)},${up(y.low[point]).toFixed(1)}V${up(y.high[point]).toFixed(1)}`;
      if (x.low && x.low[point] !== null)
        line += `M${across(x.low[point]).toFixed(1)},${py.toFixed(1)}`
          + `H${across(x.high[point]).toFixed(1)}`;
      const { colour } = lookOf(point);
      lines.set(colour, (lines.get(colour) || "") + line);
    }
    for (const [colour, d] of lines) drawing.append(svg("path", { class: "bars", stroke: colour, d }));
  }

  function drawFront(front, x, y, across, up, width, height) {
    if (!front || front.length === 0) return;
    // From the edge where the first point is alone, in steps, to the edge beyond the last one.
    const end = x.better === "least" ? width - MARGIN.right : MARGIN.left;
    const worst = y.better === "least" ? MARGIN.top : height - MARGIN.bottom;
    let d = `M${across(x.values[front[0]]).toFixed(1)},${worst}`;
    for (const point of front)
      d += `H${across(x.values[point]).toFixed(1)}V${up(y.values[point]).toFixed(1)}`;
    drawing.append(svg("path", { class: "front", d: `${d}H${end}` }));
  }

  function drawPoints(shown, x, y, across, up) {
    const radius = shown.length > MOST_BARS ? 2.5 : shown.length > 300 ? 3.5 : 5;
    const group = svg("g", {});
    points = shown.slice().sort((a, b) => x.values[a] - x.values[b] || y.values[a] - y.values[b]);
    for (const point of points) {
      const { colour, shape } = lookOf(point);
      const at = `M${across(x.values[point]).toFixed(1)},${up(y.values[point]).toFixed(1)}`;
      group.append(svg("path", {
        class: "point", fill: colour, d: at + SHAPES[shape](radius), tabindex: "-1",
        role: "button", "data-point": point,
      }));
    }
    drawing.append(group);
    const entry = elementOf(focused) || group.firstElementChild;
    if (entry) entry.setAttribute("tabindex", "0");
    const marked = elementOf(selected);
    if (marked) marked.classList.add("chosen");
  }

  function elementOf(point) {
    return point === null ? null : drawing.querySelector(`[data-point="${point}"]`);
  }

  function drawLegend(shown, front) {
    legend.replaceChildren();
    const setting = settingOf.get(chosen.colour);
    if (setting) {
      const present = new Set(shown.map((point) => setting.of[point]));
      setting.values.forEach((text, number) => {
        if (!present.has(number)) return;
        const { colour, shape } = setting.looks[number];
        const sign = svg("svg", { viewBox: "-8 -8 16 16", "aria-hidden": "true" });
        sign.append(svg("path", { fill: colour, d: `M0,0${SHAPES[shape](5)}` }));
        legend.append(html("li", {}, sign, text));
      });
    }
    if (front) {
      const sign = svg("svg", { viewBox: "-8 -8 16 16", "aria-hidden": "true" });
      sign.append(svg("path", { class: "front", d: "M-7,4H0V-4H7" }));
      legend.append(html("li", {}, sign, "Front"));
    }
  }

  function sayWhatIsShown(shown, front, bars, x, y) {
    const words = [];
    const all = shown.length === count ? "all " : "";
    const of = shown.length === count ? "" : ` of ${count.toLocaleString("en")}`;
    words.push(`Shown: ${all}${shown.length.toLocaleString("en")}${of} points.`);
    if (front) words.push(`${front.length.toLocaleString("en")} of them on the front of these two.`);
    else words.push("No front: one of the axes has no good end.");
    if (!bars && (x.low || y.low))
      words.push(`Bars of intervals are drawn for at most ${MOST_BARS.toLocaleString("en")} points.`);
    note.textContent = words.join(" ");
    drawing.setAttribute("aria-label",
      `${heading(y)} against ${heading(x)}. ${words.join(" ")} Arrow keys go from point to point.`);
  }

  function draw() {
    hideTip();
    const width = Math.max(300, Math.round(plot.clientWidth));
    const height = Math.round(Math.max(300, Math.min(480, 0.62 * width)));
    const [x, y] = [axisOf.get(chosen.x), axisOf.get(chosen.y)];
    const shown = shownPoints();
    const bars = shown.length <= MOST_BARS;
    const across = scaleOf(x, shown, bars, MARGIN.left, width - MARGIN.right);
    const up = scaleOf(y, shown, bars, height - MARGIN.bottom, MARGIN.top);
    const front = frontOf(shown, x, y);
    drawing.replaceChildren();
    drawing.setAttribute("viewBox", `0 0 ${width} ${height}`);
    drawFrame(width, height, x, y, across, up);
    if (bars) drawBars(shown, x, y, across, up);
    drawFront(front, x, y, across, up, width, height);
    drawPoints(shown, x, y, across, up);
    drawLegend(shown, front);
    sayWhatIsShown(shown, front, bars, x, y);
  }

  // The tip, and what is selected.

  function showTip(element) {
    const point = Number(element.dataset.point);
    const list = html("dl", {});
    for (const [name, text] of linesOf(point)) list.append(html("dt", {}, name), html("dd", {}, text));
    tip.replaceChildren(list);
    tip.hidden = false;
    element.setAttribute("aria-label", linesOf(point).map((line) => line.join(" ")).join(", "));
    const [at, around] = [element.getBoundingClientRect(), plot.getBoundingClientRect()];
    const left = at.right - around.left + 8;
    const fits = left + tip.offsetWidth <= around.width;
    tip.style.left = `${Math.max(0, fits ? left : at.left - around.left - tip.offsetWidth - 8)}px`;
    tip.style.top = `${at.bottom - around.top + 8}px`;
  }

  function hideTip() {
    tip.hidden = true;
  }

  function select(point) {
    for (const each of [elementOf(selected), rowOf(selected)]) if (each) each.classList.remove("chosen");
    selected = selected === point ? null : point;
    for (const each of [elementOf(selected), rowOf(selected)]) if (each) each.classList.add("chosen");
    answer.replaceChildren();
    if (selected === null) return;
    if (rowOf(selected))
      answer.append("Selected: ", html("a", { href: `#point-${selected}` }, "its row of the table"),
        " is marked.");
    else answer.append(`Selected: line ${selected + 2} of points.csv, which the table leaves out.`);
  }

  function rowOf(point) {
    return point === null ? null : document.getElementById(`point-${point}`);
  }

  function focusOn(point) {
    drawing.querySelectorAll('.point[tabindex="0"]').forEach((other) => (
      other.setAttribute("tabindex", "-1")
    ));
    focused = point;
    const element = elementOf(point);
    element.setAttribute("tabindex", "0");
    element.focus();
  }

  function pressed(event) {
    const element = event.target.closest(".point");
    if (!element) return;
    const at = points.indexOf(Number(element.dataset.point));
    const steps = { ArrowRight: at + 1, ArrowUp: at + 1, ArrowLeft: at - 1, ArrowDown: at - 1,
      Home: 0, End: points.length - 1 };
    if (event.key in steps) {
      focusOn(points[Math.min(points.length - 1, Math.max(0, steps[event.key]))]);
    } else if (event.key === "Enter" || event.key === " ") {
      select(points[at]);
    } else if (event.key === "Escape") {
      hideTip();
    } else {
      return;
    }
    event.preventDefault();
  }

  function pointOf(event) {
    return event.target.closest ? event.target.closest(".point") : null;
  }

  drawing.addEventListener("pointerover", (event) => pointOf(event) && showTip(pointOf(event)));
  drawing.addEventListener("pointerout", hideTip);
  drawing.addEventListener("focusin", (event) => pointOf(event) && showTip(pointOf(event)));
  drawing.addEventListener("focusout", hideTip);
  drawing.addEventListener("click", (event) => (
    pointOf(event) && select(Number(pointOf(event).dataset.point))
  ));
  drawing.addEventListener("keydown", pressed);

  // Choices.

  function addChoice(label, options, value, change) {
    const list = html("select", { "aria-label": label });
    for (const [key, text] of options) list.append(html("option", { value: key }, text));
    list.value = value;
    list.addEventListener("change", () => {
      change(list.value);
      draw();
    });
    choices.append(html("label", {}, label, list));
  }

  const axes = data.axes.map((axis) => [axis.name, heading(axis)]);
  addChoice("Across", axes, chosen.x, (value) => (chosen.x = value));
  addChoice("Up", axes, chosen.y, (value) => (chosen.y = value));
  if (data.settings.length > 0)
    addChoice("Colour", data.settings.map((each) => [each.name, each.label]), chosen.colour,
      (value) => (chosen.colour = value));
  for (const setting of data.settings) {
    const start = setting.values.indexOf(data.start.filters[setting.name]);
    if (start >= 0) chosen.filters[setting.name] = start;
    const options = [["", "all"], ...setting.values.map((text, number) => [String(number), text])];
    addChoice(`Only ${setting.label}`, options, start >= 0 ? String(start) : "", (value) => {
      chosen.filters[setting.name] = value === "" ? undefined : Number(value);
    });
  }

  draw();
  let drawnWidth = plot.clientWidth;
  new ResizeObserver(() => {
    if (plot.clientWidth === drawnWidth) return;
    drawnWidth = plot.clientWidth;
    draw();
  }).observe(plot);
})();
