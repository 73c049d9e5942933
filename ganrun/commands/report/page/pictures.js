// Pictures through time: a slider for each run, one for all, and a film.
const FRAME = 120; // milliseconds

function showPicture(figure, index) {
  const pictures = runs.get(Number(figure.dataset.number)).pictures;
  const [step, source] = pictures[Math.min(index, pictures.length - 1)];
  const image = figure.querySelector("img");
  image.src = source;
  image.alt = `${image.dataset.about}, step ${step}`;
  figure.querySelector("output").textContent = step.toLocaleString("en");
}

function preparePictures() {
  const figures = all(".grid");
  if (figures.length === 0) return;
  const picturesOf = (figure) => runs.get(Number(figure.dataset.number)).pictures;
  const last = Math.max(...figures.map((figure) => picturesOf(figure).at(-1)[0]));
  const time = byId("time");
  const play = byId("play");
  let film = null;
  const stop = () => {
    clearInterval(film);
    film = null;
    play.textContent = "Play";
    play.setAttribute("aria-pressed", "false");
  };
  const showTime = () => {
    const step = last * time.value / time.max;
    for (const figure of figures) {
      const index = Math.max(0, picturesOf(figure).filter(([at]) => at <= step).length - 1);
      figure.querySelector(".step").value = index;
      showPicture(figure, index);
    }
  };
  for (const figure of figures) {
    const slider = figure.querySelector(".step");
    slider.addEventListener("input", () => { stop(); showPicture(figure, Number(slider.value)); });
  }
  time.addEventListener("input", () => { stop(); showTime(); });
  play.addEventListener("click", () => {
    if (film !== null) return stop();
    if (time.value === time.max) time.value = 0;
    play.textContent = "Pause";
    play.setAttribute("aria-pressed", "true");
    film = setInterval(() => {
      time.value = Number(time.value) + Number(time.max) / 50;
      showTime();
      if (time.value === time.max) stop();
    }, FRAME);
  });
  document.addEventListener("shown", () => {
    const now = shown();
    for (const figure of figures) figure.hidden = !now.includes(Number(figure.dataset.number));
  });
}
