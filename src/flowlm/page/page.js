// The page of a model: the same noise is written again whenever something changes.
//
// A writer is asked, a server (server.js) or the model inside the page (engine/writer.js):
//   model()            id, method, parameters, length, usual_steps, settings, words (text of tokens)
//   film(asked, late)  {frames, ended}; null if late() has come to say that nobody waits any more
//   copies, note       what buttons copy, a function of `asked` by what each says; a sentence
// `asked` is {steps, seed, given} and of temperature and gamma those that are not as usual; `settings`
// of the model names those that its sampler has.

const find = (id) => document.getElementById(id);
const controls = ["steps", "seed", "temperature", "gamma"];
const USUAL = { temperature: "1", gamma: "-0.1" }; // positions at which the sampler is as it is
const WAIT = 60; // milliseconds without a change, before it is written

let writer = null;
let frames = [];
let pins = [];
let asked = 0; // number of the last request: answers of earlier ones are too late
let timer = 0;
let playing = 0;

export async function start(theWriter) {
  writer = theWriter;
  try {
    await prepare();
  } catch (error) {
    find("said").textContent = error.message;
  }
}

async function prepare() {
  const model = await writer.model();
  find("model").textContent =
    `${model.id} · ${model.method} · ${model.parameters.toLocaleString("en")} parameters · ` +
    `texts of ${model.length} tokens`;
  find("note").textContent = writer.note;
  find("copies").replaceChildren(...Object.keys(writer.copies).map(copier));
  for (const name in USUAL) find(name).closest("label").hidden = !model.settings.includes(name);
  pins = Array(model.length).fill(null);
  find("steps").value = model.usual_steps;
  if (model.words.length <= 2000) {
    find("words").replaceChildren(...model.words.map((word) => new Option(word)));
  }
  for (const name of controls) find(name).addEventListener("input", change);
  find("frame").addEventListener("input", () => { stop(); show(); });
  find("play").addEventListener("click", () => (playing ? stop() : play()));
  find("free").addEventListener("click", () => { pins.fill(null); change(); });
  find("choice").addEventListener("close", chosen);
  addEventListener("hashchange", follow);
  follow();
}

// Write what the address says after its #, as `asked` in JSON; without it what the controls say.
function follow() {
  try {
    const linked = { ...USUAL, ...JSON.parse(decodeURIComponent(location.hash.slice(1))) };
    for (const name of controls) if (name in linked) find(name).value = linked[name];
    pins = pins.map((_, place) => linked.given?.[place] ?? null);
  } catch {
    // No link, or not one of this page.
  }
  change();
}

function settings() {
  const chosen = Object.fromEntries(controls.map((name) => [name, Number(find(name).value)]));
  for (const name in USUAL) if (find(name).value === USUAL[name]) delete chosen[name];
  return { ...chosen, given: pins };
}

function change() {
  for (const name of controls) {
    const usual = name === "gamma" && find(name).value === USUAL[name];
    find(`${name}-shown`).textContent = usual ? "as usual" : find(name).value;
  }
  clearTimeout(timer);
  timer = setTimeout(write, WAIT);
}

async function write() {
  stop();
  const mine = ++asked;
  try {
    const film = await writer.film(settings(), () => mine !== asked);
    if (mine !== asked) return;
    const { ended } = film;
    frames = film.frames;
    find("frame").max = frames.length - 1;
    find("frame").value = frames.length - 1;
    const passes = ended.evaluations === 1 ? "1 evaluation" : `${ended.evaluations} evaluations`;
    const valid = ended.valid === null ? "" : ended.valid ? " · a valid sentence" : " · not valid";
    find("said").textContent =
      `${passes} of the network; left to right it would take ${ended.tokens.length}${valid}`;
    show();
  } catch (error) {
    if (mine === asked) find("said").textContent = error.message;
  }
}

function show() {
  const frame = frames[Number(find("frame").value)];
  if (!frame) return;
  find("moment").textContent = `step ${frame.step + 1} of ${frame.steps}, τ ${frame.tau.toFixed(2)}`;
  const focus = [...find("tokens").children].findIndex((item) => item.contains(document.activeElement));
  find("tokens").replaceChildren(...frame.words.map((word, place) => chip(frame, word, place)));
  if (focus >= 0) find("tokens").children[focus]?.firstChild.focus();
}

function chip(frame, word, place) {
  const button = document.createElement("button");
  const sure = frame.confidence[place] ?? 1;
  button.type = "button";
  button.textContent = word ?? "·";
  button.style.opacity = String(0.25 + 0.75 * sure);
  button.title = `${(100 * sure).toFixed(1)} %`;
  button.classList.toggle("pinned", pins[place] !== null);
  button.setAttribute("aria-pressed", String(pins[place] !== null));
  button.addEventListener("click", () => choose(place, word));
  const item = document.createElement("li");
  item.append(button);
  return item;
}

function choose(place, word) {
  const frame = frames[Number(find("frame").value)];
  const dialog = find("choice");
  dialog.dataset.place = place;
  find("place").textContent = `Place ${place + 1}`;
  find("word").value = pins[place] ?? word ?? "";
  const likely = (frame.alternatives[place] ?? []).map(([other, chance]) => {
    const button = document.createElement("button");
    const share = document.createElement("span");
    button.value = "pin";
    button.append(other, share);
    share.className = "quiet";
    share.textContent = `${(100 * chance).toFixed(1)} %`;
    button.addEventListener("click", () => { find("word").value = other; });
    return button;
  });
  find("likely").replaceChildren(...likely);
  dialog.returnValue = "";
  dialog.showModal();
  find("word").select();
}

function chosen() {
  const dialog = find("choice");
  const place = Number(dialog.dataset.place);
  if (dialog.returnValue === "pin" && find("word").value) pins[place] = find("word").value;
  else if (dialog.returnValue === "unpin") pins[place] = null;
  else return;
  change();
}

function play() {
  const still = matchMedia("(prefers-reduced-motion: reduce)").matches;
  if (still || frames.length < 2) return;
  find("frame").value = 0;
  find("play").textContent = "Stop";
  show();
  playing = setInterval(() => {
    find("frame").value = Number(find("frame").value) + 1;
    show();
    if (Number(find("frame").value) >= frames.length - 1) stop();
  }, 250);
}

function stop() {
  clearInterval(playing);
  playing = 0;
  find("play").textContent = "Play";
}

function copier(name) {
  const button = document.createElement("button");
  button.type = "button";
  button.textContent = name;
  button.addEventListener("click", async () => {
    try {
      await navigator.clipboard.writeText(writer.copies[name](settings()));
      find("said").textContent = "Copied.";
    } catch {
      find("said").textContent = "This browser does not let the page copy.";
    }
  });
  return button;
}
