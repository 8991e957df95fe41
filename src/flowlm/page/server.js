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

start({
  copies: "Copy as curl",
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

  copied(asked) {
    const body = JSON.stringify(asked).replaceAll("'", "'\\''");
    const token = sessionStorage.getItem("token") === null ? "" : ` -H "authorization: Bearer $FLOWLM_TOKEN"`;
    const kind = "-H 'content-type: application/json'";
    return `curl -s ${location.origin}/v1/film ${kind}${token} -d '${body}'`;
  },
});
