// The writer of a served page: the server that sent it.

import { start } from "./page.js";

const find = (id) => document.getElementById(id);
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

async function json(path) {
  return (await ask(path)).json();
}

function curl(asked) {
  const body = JSON.stringify(asked).replaceAll("'", "'\\''");
  const token = hasToken() ? ` -H "authorization: Bearer $FLOWLM_TOKEN"` : "";
  const kind = "-H 'content-type: application/json'";
  return `curl -s ${location.origin}/v1/film ${kind}${token} -d '${body}'`;
}

function python(asked) {
  const token = hasToken() ? `, "authorization": "Bearer " + os.environ["FLOWLM_TOKEN"]` : "";
  const words = JSON.stringify(JSON.stringify(asked)); // as a string it is the same in Python
  return [
    `import ${hasToken() ? "json, os" : "json"}, urllib.request`,
    `headers = {"content-type": "application/json"${token}}`,
    `body = ${words}.encode()`,
    `asked = urllib.request.Request("${location.origin}/v1/film", body, headers)`,
    "*frames, answer = map(json.loads, urllib.request.urlopen(asked))",
    'print(*frames[-1]["words"])',
  ].join("\n");
}

function hasToken() {
  return sessionStorage.getItem("token") !== null;
}

start({
  copies: { "Copy as curl": curl, "Copy as Python": python },
  note: "",

  async model() {
    const [model] = (await json("/v1/models")).data;
    return { id: model.id, ...model.flowlm, words: (await json("/v1/vocabulary")).words };
  },

  async film(asked) {
    const answer = await ask("/v1/film", {
      method: "POST", headers: { "content-type": "application/json" }, body: JSON.stringify(asked),
    });
    const text = await answer.text();
    if (!answer.ok) throw new Error(JSON.parse(text).error.message);
    const frames = text.trim().split("\n").map((line) => JSON.parse(line));
    const ended = frames.pop();
    if (ended.error) throw new Error(ended.error.message);
    return { frames, ended };
  },
});
