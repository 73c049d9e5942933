"use strict";

const byId = (id) => document.getElementById(id);
const state = { about: null, url: null, wanted: 0, running: null, playing: null };

function element(tag, properties, ...children) {
  const made = Object.assign(document.createElement(tag), properties);
  made.append(...children);
  return made;
}

/** The images that the slider chooses: one, then squares, or whole rows of all classes; as far as a request may go. */
function numbers() {
  const columns = byId("label").value === "" ? state.about.classes.length : 0;
  const rows = columns > 1 && columns <= 20 ? [1, 2, 3, 4, 6, 8, 10].map((num) => num * columns) : [2, 4, 9, 16, 25, 36, 64];
  return [1, ...rows.filter((num) => num <= state.about.limits.most)];
}

const numberOf = () => numbers()[Math.min(byId("num").value, numbers().length - 1)];

function truncation() {
  const share = Number(byId("truncation").value) / 100;
  if (!state.about.truncation || share === 1) return null;
  return state.about.truncation === "w" ? share : Math.max(0.02, 2 * share);
}

/** Attributes or codes as one label; null if there are none. */
function labelOf() {
  if (state.about.classes.length) {
    return byId("label").value === "" ? null : Number(byId("label").value);
  }
  const inputs = [...byId("attributes").querySelectorAll("[data-name]")].filter((input) => input.value !== "");
  return inputs.length ? Object.fromEntries(inputs.map((input) => [input.dataset.name, Number(input.value)])) : null;
}

/** The body of the request that the controls describe. */
function body() {
  const num = state.about.kind === "vectors" ? Math.min(1000, state.about.limits.most) : numberOf();
  const asked = { num, seed: Number(byId("seed-number").value), format: num === 1 && isPng() ? "png" : "grid" };
  const label = labelOf();
  if (label !== null) asked.label = label;
  if (truncation() !== null) asked.truncation = truncation();
  if (byId("walk").checked) Object.assign(asked, { to: Number(byId("to").value), at: Number(byId("at").value) / 100 });
  return asked;
}

const isPng = () => state.about.kind === "images" && state.about.shape[0] <= 4;

function say(text, bad = false) {
  byId("said").textContent = text;
  byId("said").classList.toggle("bad", bad);
}

async function post(path, content, type) {
  const response = await fetch(path, { method: "POST", body: content, headers: { "Content-Type": type } });
  if (!response.ok) {
    const told = await response.json().catch(() => ({ detail: response.statusText }));
    throw new Error(told.detail);
  }
  return response;
}

/** By how much a small picture is enlarged: a whole number, so that its pixels stay square. */
function enlarged(picture) {
  const wide = byId("pictures").clientWidth / (byId("source").hidden ? 1 : 2) - 10;
  const high = ((innerWidth > 800 ? 0.6 : 0.46) * innerHeight) / picture.naturalHeight;
  return Math.max(1, Math.floor(Math.min(Math.min(wide, 420) / picture.naturalWidth, high)));
}

async function show(response) {
  const url = URL.createObjectURL(await response.blob());
  const picture = byId("picture");
  picture.src = url;
  await picture.decode();
  picture.hidden = false;
  picture.width = picture.naturalWidth * enlarged(picture);
  if (state.url) URL.revokeObjectURL(state.url);
  state.url = byId("save").href = url;
  byId("saving").hidden = false;
}

/** Asks for what the controls describe; while one request is under way, only the newest wish is kept. */
async function ask() {
  state.wanted += 1;
  if (state.running) return state.running;
  state.running = (async () => {
    let done = 0;
    while (done !== state.wanted) {
      done = state.wanted;
      await answer();
    }
  })();
  await state.running;
  state.running = null;
  document.body.dataset.ready = String(state.wanted);
}

async function answer() {
  const began = performance.now();
  const content = JSON.stringify(body());
  byId("curl").textContent = `curl -d '${content}' -H 'Content-Type: application/json' ${location.origin}/sample -o samples.png`;
  try {
    const response = await post("sample", content, "application/json");
    await show(response);
    const note = response.headers.get("Ganrun-Note");
    byId("picture").alt = `Samples of seed ${body().seed}`;
    say(`${body().num} in ${Math.round(performance.now() - began)} ms${note ? `. ${note}` : ""}`);
  } catch (error) {
    say(error.message, true);
    stop();
  }
}

function words() {
  byId("num-said").value = numberOf();
  byId("truncation-said").value = truncation() === null ? "off" : truncation().toFixed(2);
  byId("to-said").value = byId("to").value;
  byId("at-said").value = `${byId("at").value} %`;
  const walks = byId("walk").checked;
  for (const id of ["to", "at", "play"]) byId(id).disabled = !walks;
  for (const input of byId("attributes").querySelectorAll("input[type=range]")) {
    input.parentElement.querySelector("output").value = Number(input.value).toPrecision(3);
  }
}

function stop() {
  clearInterval(state.playing);
  state.playing = null;
  byId("play").textContent = "Play";
  byId("play").setAttribute("aria-pressed", "false");
}

/** There and back again, a step whenever the last picture has come. */
function play() {
  if (state.playing) return stop();
  let step = 1;
  byId("play").textContent = "Stop";
  byId("play").setAttribute("aria-pressed", "true");
  state.playing = setInterval(() => {
    if (state.running) return;
    const at = Number(byId("at").value);
    if (at + step > 100 || at + step < 0) step = -step;
    byId("at").value = at + step;
    words();
    ask();
  }, 40);
}

async function arrays() {
  try {
    const response = await post("sample", JSON.stringify({ ...body(), format: "npz" }), "application/json");
    const url = URL.createObjectURL(await response.blob());
    element("a", { href: url, download: "samples.npz" }).click();
    setTimeout(() => URL.revokeObjectURL(url), 1000);
  } catch (error) {
    say(error.message, true);
  }
}

async function translate() {
  const [file] = byId("file").files;
  if (!file) return;
  const began = performance.now();
  if (byId("source").src) URL.revokeObjectURL(byId("source").src);
  const source = Object.assign(byId("source"), { src: URL.createObjectURL(file), alt: file.name, hidden: false });
  await source.decode().then(() => { source.width = source.naturalWidth * enlarged(source); }, () => { source.hidden = true; });
  try {
    const direction = encodeURIComponent(byId("direction").value);
    await show(await post(`translate?direction=${direction}`, file, file.type || "application/octet-stream"));
    byId("picture").alt = `${file.name}, translated`;
    say(`${file.name} in ${Math.round(performance.now() - began)} ms`);
  } catch (error) {
    byId("picture").hidden = true;
    say(error.message, true);
  }
  document.body.dataset.ready = file.name;
}

function slider(name, low, high, value) {
  const id = `attribute-${name}`;
  const input = element("input", { type: "range", id, min: low, max: high, step: (high - low) / 100 || 1, value });
  input.dataset.name = name;
  return element("div", { className: "row" }, element("label", { htmlFor: id, textContent: name }), input, element("output"));
}

function choice(name, num) {
  const options = [...Array(num).keys()].map((index) => element("option", { value: index, textContent: index }));
  const select = element("select", { id: `attribute-${name}` }, element("option", { value: "", textContent: "any" }), ...options);
  select.dataset.name = name;
  return element("div", { className: "row" }, element("label", { htmlFor: select.id, textContent: name }), select);
}

function ofSampler(about) {
  byId("sampling").hidden = byId("walking").hidden = byId("request").hidden = false;
  byId("num").max = 7;
  byId("num").parentElement.hidden = about.kind === "vectors";
  byId("label-row").hidden = !about.classes.length;
  byId("label").append(element("option", { value: "", textContent: "all in turn" }));
  byId("label").append(...about.classes.map((name, value) => element("option", { value, textContent: name })));
  byId("attributes").append(...about.attributes.map((one) => slider(one.name, one.low, one.high, one.kind === "binary" ? one.low : one.mean)));
  if (about.codes) {
    byId("attributes").append(...about.codes.categorical.map((num, index) => choice(`c${index + 1}`, num)));
    const from = about.codes.categorical.length + 1;
    byId("attributes").append(...Array.from({ length: about.codes.continuous }, (_, index) => slider(`c${from + index}`, -1, 1, 0)));
  }
  byId("truncation-row").hidden = !about.truncation;
  byId("asked").addEventListener("input", (event) => {
    if (event.target.id === "seed") byId("seed-number").value = byId("seed").value;
    if (event.target.id === "seed-number") byId("seed").value = byId("seed-number").value;
    words();
    ask();
  });
  byId("play").addEventListener("click", play);
  byId("walk").addEventListener("change", () => byId("walk").checked || stop());
  byId("arrays").addEventListener("click", arrays);
  words();
  ask();
}

function ofTranslator(about) {
  byId("translating").hidden = false;
  byId("arrays").hidden = true;
  byId("save").download = "translated.png";
  byId("direction").append(...Object.keys(about.directions).map((name) => element("option", { value: name, textContent: name })));
  byId("direction-row").hidden = Object.keys(about.directions).length < 2;
  byId("file").addEventListener("change", translate);
  byId("direction").addEventListener("change", translate);
  say("Choose an image.");
  document.body.dataset.ready = "0";
}

async function start() {
  byId("asked").addEventListener("submit", (event) => event.preventDefault());
  try {
    const response = await fetch("generator");
    state.about = await response.json();
    if (!response.ok) throw new Error(state.about.detail);
  } catch (error) {
    return say(`The server does not answer: ${error.message}`, true);
  }
  const { trained, file } = state.about;
  byId("what").textContent = [trained.dataset ?? file, trained.steps && `step ${trained.steps.toLocaleString("en")}`].filter(Boolean).join(" · ");
  document.title = `ganrun ${byId("what").textContent}`;
  (state.about.kind === "translator" ? ofTranslator : ofSampler)(state.about);
}

start();
