// The curves: one chart for each name, all runs in it that are shown.
const SIZE = { height: 210, left: 54, right: 34, top: 10, bottom: 26 };
const FEW = 12; // points that are dots, too
const cursors = new Map(); // of a chart: the step that is read

function svg(name, attributes = {}, text = "") {
  const node = document.createElementNS("http://www.w3.org/2000/svg", name);
  for (const [key, value] of Object.entries(attributes)) node.setAttribute(key, value);
  node.textContent = text;
  return node;
}

function spelt(value) {
  const size = Math.abs(value);
  return size !== 0 && (size < 1e-3 || size >= 1e5) ? value.toExponential(1) : String(Number(value.toPrecision(4)));
}

/** An exponential average, without the pull of its first value. */
function smoothed(values, weight) {
  let mean = 0;
  let mass = 0;
  return values.map((value) => {
    if (value === null) return null;
    mean = weight * mean + (1 - weight) * value;
    mass = weight * mass + (1 - weight);
    return mean / mass;
  });
}

/** The runs that are shown and have this curve. */
const having = (name) => shown().map((number) => runs.get(number)).filter((run) => run.curves[name]);

/** The lines of a chart: points [step, value] of each run; value null where there is none. Few points stay as they are. */
function linesOf(name, log, weight) {
  const scaled = (value) => (value === null || !log ? value : Math.log10(value));
  return having(name).map((run) => {
    const [which, values] = run.curves[name];
    const smooth = weight > 0 && values.length > FEW;
    const points = (some) => some.map((value, i) => [run.steps[which][i], scaled(value)]);
    return { run, points: points(smooth ? smoothed(values, weight) : values), raw: smooth ? points(values) : [] };
  });
}

function niceTicks(low, high, most) {
  const rough = (high - low) / most || 1;
  const power = 10 ** Math.floor(Math.log10(rough));
  const step = power * [1, 2, 5, 10].find((factor) => factor * power >= rough * 0.999);
  const first = Math.ceil(low / step - 1e-9);
  return Array.from({ length: Math.floor(high / step + 1e-9) - first + 1 }, (_, i) => (first + i) * step);
}

/** The heights of ticks on the scale of the chart, which is logarithmic if `log`. */
function ticksOf(low, high, log) {
  if (!log) return niceTicks(low, high, 5);
  if (high - low < 1) return niceTicks(10 ** low, 10 ** high, 5).filter((tick) => tick > 0).map(Math.log10);
  return niceTicks(low, high, 4).filter(Number.isInteger);
}

function rangeOf(values) {
  const low = values.reduce((one, other) => Math.min(one, other), Infinity);
  const high = values.reduce((one, other) => Math.max(one, other), -Infinity);
  const margin = high > low ? 0.04 * (high - low) : Math.abs(high) * 0.1 || 1;
  return [low - margin, high + margin];
}

function pathOf(points, x, y) {
  let pen = "M";
  return points.map(([step, value]) => {
    if (value === null) return (pen = "M"), "";
    const part = `${pen}${x(step).toFixed(1)},${y(value).toFixed(1)}`;
    pen = "L";
    return part;
  }).join("");
}

/** Labels at the ends of lines, moved apart so that none covers another. */
function addLabels(chart, ends, x) {
  const room = SIZE.height - SIZE.top - SIZE.bottom;
  const gap = Math.min(12, room / Math.max(1, ends.length));
  ends.sort((one, other) => one.y - other.y);
  ends.forEach((end, i) => { end.y = Math.max(end.y, i ? ends[i - 1].y + gap : SIZE.top); });
  let lowest = SIZE.height - SIZE.bottom;
  for (const end of [...ends].reverse()) {
    end.y = Math.min(end.y, lowest);
    lowest = end.y - gap;
    const label = svg("text", { x: x + 5, y: end.y + 4, class: "end" }, `#${end.run.number}`);
    label.style.fill = end.run.colour;
    chart.append(label);
  }
}

function addAxes(chart, x, y, steps, values, width, log) {
  for (const tick of ticksOf(...values, log)) {
    if (tick < values[0] || tick > values[1]) continue;
    chart.append(svg("line", { x1: SIZE.left, x2: width - SIZE.right, y1: y(tick), y2: y(tick), class: "axis" }));
    const text = spelt(log ? 10 ** tick : tick);
    chart.append(svg("text", { x: SIZE.left - 6, y: y(tick) + 4, "text-anchor": "end" }, text));
  }
  for (const tick of niceTicks(...steps, width > 420 ? 5 : 3)) {
    const text = tick >= 1e6 ? `${tick / 1e6}M` : tick >= 1e4 ? `${tick / 1e3}k` : String(tick);
    chart.append(svg("text", { x: x(tick), y: SIZE.height - 8, "text-anchor": "middle" }, text));
  }
}

function draw(figure) {
  const plot = figure.querySelector(".plot");
  const width = Math.round(plot.clientWidth);
  if (width === 0) return; // in a closed group
  const positive = having(figure.dataset.curve).every((run) => run.curves[figure.dataset.curve][1].every((value) => value === null || value > 0));
  const log = byId("log").checked && positive;
  const lines = linesOf(figure.dataset.curve, log, Number(byId("smoothing").value));
  const points = lines.flatMap((line) => [...line.points, ...line.raw]).filter(([, value]) => value !== null);
  if (points.length === 0) {
    plot.textContent = lines.length === 0 ? "In none of the runs that are shown." : "No finite value.";
    return;
  }
  const steps = [Math.min(0, ...lines.map(({ points: [[first]] }) => first)), Math.max(1, ...points.map(([step]) => step))];
  const values = rangeOf(points.map(([, value]) => value));
  const x = (step) => SIZE.left + (width - SIZE.left - SIZE.right) * (step - steps[0]) / (steps[1] - steps[0]);
  const y = (value) => SIZE.top + (SIZE.height - SIZE.top - SIZE.bottom) * (values[1] - value) / (values[1] - values[0]);
  const chart = svg("svg", { viewBox: `0 0 ${width} ${SIZE.height}`, role: "img", tabindex: 0 });
  chart.setAttribute("aria-label", told(figure.dataset.curve, lines, log));
  addAxes(chart, x, y, steps, values, width, log);
  for (const { run, points: [...line], raw } of lines) {
    if (raw.length) chart.append(styled(svg("path", { d: pathOf(raw, x, y), class: "line raw" }), run));
    chart.append(styled(svg("path", { d: pathOf(line, x, y), class: "line", "data-number": run.number }), run));
    const known = line.filter(([, value]) => value !== null);
    if (known.length <= FEW) for (const [step, value] of known) {
      const dot = svg("circle", { cx: x(step), cy: y(value), r: 2.5 });
      dot.style.fill = run.colour;
      chart.append(dot);
    }
  }
  if (byId("log").checked && !log) chart.append(svg("text", { x: SIZE.left + 4, y: SIZE.top + 4 }, "linear: some values are not above 0"));
  const last = (line) => line.points.findLast(([, value]) => value !== null);
  const ends = lines.filter(last).map((line) => ({ run: line.run, y: y(last(line)[1]) }));
  addLabels(chart, ends, width - SIZE.right);
  plot.replaceChildren(chart);
  listen(figure, chart, lines, { x, steps, width, log });
}

function styled(path, run) {
  path.style.stroke = run.colour;
  path.style.strokeDasharray = run.dash;
  return path;
}

/** A chart in words. */
function told(name, lines, log) {
  const real = (value) => spelt(log ? 10 ** value : value);
  const parts = lines.map(({ run, points }) => {
    const known = points.filter(([, value]) => value !== null);
    return known.length ? `run ${run.number} from ${real(known[0][1])} to ${real(known.at(-1)[1])}` : `run ${run.number} without values`;
  });
  return `${name} over steps: ${parts.join(", ")}`;
}

/** Reads values under the pointer, or where the arrow keys have moved. */
function listen(figure, chart, lines, { x, steps, width, log }) {
  const readout = figure.querySelector(".readout");
  const cursor = svg("line", { y1: SIZE.top, y2: SIZE.height - SIZE.bottom, class: "cursor", visibility: "hidden" });
  const every = [...new Set(lines.flatMap((line) => line.points.map(([step]) => step)))].sort((a, b) => a - b);
  const nearest = (points, step) => points.reduce((one, other) => (Math.abs(other[0] - step) < Math.abs(one[0] - step) ? other : one));
  chart.append(cursor);
  const read = (step) => {
    cursors.set(figure, step);
    for (const end of ["x1", "x2"]) cursor.setAttribute(end, x(step));
    cursor.setAttribute("visibility", "visible");
    const parts = lines.map(({ run, points }) => {
      const value = nearest(points, step)[1];
      return `#${run.number} ${value === null ? "–" : spelt(log ? 10 ** value : value)}`;
    });
    readout.textContent = `step ${step.toLocaleString("en")}: ${parts.join(" · ")}`;
  };
  chart.addEventListener("pointermove", (event) => {
    const box = chart.getBoundingClientRect();
    const share = ((event.clientX - box.left) * width / box.width - SIZE.left) / (width - SIZE.left - SIZE.right);
    read(nearest(every.map((step) => [step]), steps[0] + share * (steps[1] - steps[0]))[0]);
  });
  chart.addEventListener("keydown", (event) => {
    const moves = { ArrowLeft: -1, ArrowRight: 1, Home: -Infinity, End: Infinity };
    if (!(event.key in moves)) return;
    event.preventDefault();
    const now = cursors.has(figure) ? every.indexOf(cursors.get(figure)) : every.length;
    read(every[Math.min(every.length - 1, Math.max(0, now + moves[event.key]))]);
  });
}

function prepareCurves() {
  const figures = all(".chart");
  if (figures.length === 0) return;
  const drawAll = () => figures.forEach(draw);
  const showWeight = () => { byId("smoothing-value").textContent = byId("smoothing").value; };
  byId("log").addEventListener("change", drawAll);
  byId("smoothing").addEventListener("input", () => { showWeight(); drawAll(); });
  document.addEventListener("shown", () => { showWeight(); drawAll(); });
  for (const group of all("details.group")) group.addEventListener("toggle", () => all(".chart", group).forEach(draw));
  let width = window.innerWidth;
  window.addEventListener("resize", () => {
    if (window.innerWidth !== width) drawAll();
    width = window.innerWidth;
  });
}
