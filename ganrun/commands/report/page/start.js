// What begins once the page is there: controls, copying, printing, and loading anew while runs go on.
const KEPT = `ganrun report ${location.pathname}`;
const inputs = () => all("input[id], select[id]");

function copyButtons() {
  for (const code of all(".command code")) {
    const button = document.createElement("button");
    button.type = "button";
    button.textContent = "Copy";
    button.addEventListener("click", async () => {
      try {
        await navigator.clipboard.writeText(code.textContent);
        button.textContent = "Copied";
        setTimeout(() => { button.textContent = "Copy"; }, 1500);
      } catch {
        getSelection().selectAllChildren(code);
      }
    });
    code.after(button);
  }
}

/** Opens the run that a link leads to. */
function openTarget() {
  const target = location.hash.startsWith("#run-") && byId(location.hash.slice(1));
  if (target) target.open = true;
}

/** A slider at its end follows what is new, so it is not kept. */
function isKept(input) {
  return input.type !== "range" || input.id === "smoothing" || input.value !== input.max;
}

function keepState() {
  const sorted = document.querySelector("[aria-sort]");
  const state = {
    inputs: inputs().filter(isKept).map(({ id, value, checked }) => [id, value, checked]),
    sorted: sorted && [sorted.dataset.key, sorted.getAttribute("aria-sort")],
    closed: all("details.group").map((group) => [group.querySelector("h3").textContent, group.open]),
    opened: all("details.run").filter((run) => run.open).map((run) => run.id),
    focus: document.activeElement?.id,
    scroll: window.scrollY,
  };
  stored((storage) => storage.setItem(KEPT, JSON.stringify(state)));
}

/** What `use` makes of the browser's memory for this tab; null where a browser gives a page from disk none. */
function stored(use) {
  try {
    return use(sessionStorage);
  } catch {
    return null;
  }
}

function takeState() {
  const state = JSON.parse(stored((storage) => storage.getItem(KEPT)));
  stored((storage) => storage.removeItem(KEPT));
  if (!state) return null;
  for (const [id, value, checked] of state.inputs) {
    if (byId(id)) Object.assign(byId(id), { value, checked });
  }
  const heading = state.sorted && document.querySelector(`th[data-key="${state.sorted[0]}"]`);
  if (heading) sortBy(heading, state.sorted[1]);
  const groups = new Map(state.closed);
  for (const group of all("details.group")) group.open = groups.get(group.querySelector("h3").textContent) ?? group.open;
  for (const id of state.opened) if (byId(id)) byId(id).open = true;
  for (const [id] of state.inputs) {
    const figure = byId(id)?.closest(".grid");
    if (figure) showPicture(figure, Number(byId(id).value));
  }
  return state;
}

function reloadSoon(seconds) {
  setTimeout(() => {
    keepState();
    location.reload();
  }, 1000 * seconds);
}

prepareTable();
prepareCurves();
preparePictures();
copyButtons();
for (const hidden of all(".controls, #filter-help")) hidden.hidden = false;
const state = takeState();
filter();
openTarget();
window.addEventListener("hashchange", openTarget);
window.addEventListener("beforeprint", () => { for (const run of all("details.run")) run.open = true; });
if (state) {
  window.scrollTo(0, state.scroll);
  if (state.focus) byId(state.focus)?.focus({ preventScroll: true });
}
if (document.documentElement.dataset.reload) reloadSoon(Number(document.documentElement.dataset.reload));
document.documentElement.dataset.ready = "true";
