// The writer of a served page: the server that sent it.

import { start } from "./page.js";

async function json(path) {
  return (await fetch(path)).json();
}

start({
  copies: "Copy as curl",
  note: "",

  async model() {
    const [model] = (await json("/v1/models")).data;
    return { id: model.id, ...model.flowlm, words: (await json("/v1/vocabulary")).words };
  },

  async film(asked) {
    const answer = await fetch("/v1/film", {
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
    return `curl -s ${location.origin}/v1/film -H 'content-type: application/json' -d '${body}'`;
  },
});
