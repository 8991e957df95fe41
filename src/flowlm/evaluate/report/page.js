// A player for the table of frames, and a choice of samplers. Without this script all is shown.
"use strict";
(() => {
  const chosen = document.querySelector(".chosen");
  if (!chosen) return;
  const cards = [...document.querySelectorAll(".cards > .card")];
  const select = chosen.querySelector("select");
  chosen.hidden = cards.length < 2;
  select.addEventListener("change", () => {
    cards.forEach((card, index) => {
      card.hidden = select.selectedIndex > 0 && index !== select.selectedIndex - 1;
    });
  });
})();
(() => {
  const film = document.getElementById("film");
  if (!film) return;
  const frames = [...film.querySelectorAll("tbody tr")];
  const [player, stage, button, slider, clock] = [".player", ".stage", "button", "input", "output"]
    .map((name) => film.querySelector(name));
  const last = frames.length - 1;
  const pause = Math.min(600, Math.max(70, 5000 / frames.length));
  let timer = 0;

  const show = (index) => {
    const [time, words] = frames[index].children;
    stage.replaceChildren(...words.cloneNode(true).childNodes);
    clock.textContent = `τ = ${time.textContent}`;
    slider.value = index;
    slider.setAttribute("aria-valuetext", clock.textContent);
  };
  const stop = () => {
    clearInterval(timer);
    timer = 0;
    button.textContent = "Play";
  };
  const play = () => {
    if (Number(slider.value) === last) show(0);
    button.textContent = "Pause";
    timer = setInterval(() => {
      show(Math.min(Number(slider.value) + 1, last));
      if (Number(slider.value) === last) stop();
    }, pause);
  };

  button.addEventListener("click", () => (timer ? stop() : play()));
  slider.addEventListener("input", () => { stop(); show(Number(slider.value)); });
  film.querySelector("details").open = false;
  player.hidden = false;
  show(last);
})();
