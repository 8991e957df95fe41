// The page of a served model: the same noise is written again whenever something changes.

const find = (id) => document.getElementById(id);
const controls = ["steps", "seed", "temperature"];
const WAIT = 60; // milliseconds without a change, before it is written

let frames = [];
let ended = null;
let pins = [];
let asked = 0; // number of the last request: answers of earlier ones are too late
let timer = 0;
let playing = 0;

let wanted = null; // the answer of the dialog, while it is open

// A server with a token is asked with it: the dialog asks for it once, and this tab keeps it.
async function ask(path, options = {}) {
  const token = sessionStorage.getItem("token");
  const own = token === null ? {} : { authorization: `Bearer ${token}` };
  const answer = await fetch(path, { ...options, headers: { ...options.headers, ...own } });
  if (answer.status !== 401) return answer;
  wanted ??= token === sessionStorage.getItem("token") ? tokenOf(token) : null;
  await wanted;
  return ask(path, options);
}

function tokenOf(refused) {
  const dialog = find("access");
  find("wrong").hidden = refused === null;
  find("token").value = "";
  dialog.returnValue = "";
  dialog.showModal();
  return new Promise((resolve, reject) => {
    dialog.addEventListener("close", () => {
      wanted = null;
      if (dialog.returnValue !== "give") {
        reject(new Error("This server answers with its token alone: load the page again to give it."));
        return;
      }
      sessionStorage.setItem("token", find("token").value);
      resolve();
    }, { once: true });
  });
}

async function start() {
  const models = await (await ask("/v1/models")).json();
  const model = models.data[0];
  const of = model.flowlm;
  find("model").textContent =
    `${model.id} · ${of.method} · ${of.parameters.toLocaleString("en")} parameters · ` +
    `texts of ${of.length} tokens`;
  pins = Array(of.length).fill(null);
  find("steps").value = of.usual_steps;
  const words = (await (await ask("/v1/vocabulary")).json()).words;
  if (words.length <= 2000) {
    find("words").replaceChildren(...words.map((word) => new Option(word)));
  }
  for (const name of controls) find(name).addEventListener("input", change);
  find("frame").addEventListener("input", () => { stop(); show(); });
  find("play").addEventListener("click", () => (playing ? stop() : play()));
  find("free").addEventListener("click", () => { pins.fill(null); change(); });
  find("copy").addEventListener("click", copy);
  find("choice").addEventListener("close", chosen);
  change();
}

function body() {
  const settings = Object.fromEntries(controls.map((name) => [name, Number(find(name).value)]));
  if (settings.temperature === 1) delete settings.temperature;
  return JSON.stringify({ ...settings, given: pins });
}

function change() {
  for (const name of controls) find(`${name}-shown`).textContent = find(name).value;
  clearTimeout(timer);
  timer = setTimeout(write, WAIT);
}

async function write() {
  stop();
  const mine = ++asked;
  try {
    const answer = await ask("/v1/film", {
      method: "POST", headers: { "content-type": "application/json" }, body: body(),
    });
    const text = await answer.text();
    if (mine !== asked) return;
    if (!answer.ok) throw new Error(JSON.parse(text).error.message);
    const lines = text.trim().split("\n").map((line) => JSON.parse(line));
    ended = lines.pop();
    if (ended.error) throw new Error(ended.error.message);
    frames = lines;
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

async function copy() {
  const escaped = body().replaceAll("'", "'\\''");
  const token = sessionStorage.getItem("token") === null ? "" : ` -H "authorization: Bearer $FLOWLM_TOKEN"`;
  const kind = "-H 'content-type: application/json'";
  const words = `curl -s ${location.origin}/v1/film ${kind}${token} -d '${escaped}'`;
  await navigator.clipboard.writeText(words);
  find("said").textContent = "Copied.";
}

start().catch((error) => { find("said").textContent = error.message; });
