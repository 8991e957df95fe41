// The writer of a page that stands alone: the model inside it.

import { start } from "../page.js";
import { Model } from "./model.js";
import { FREE } from "./space.js";

const ALTERNATIVES = 5;

function writer(model) {
  const { about, words, vocab } = model.facts;
  const ids = new Map(words.map((word, id) => [word, id]).reverse()); // of equal words the first

  function idOf(word) {
    if (word === null) return FREE;
    if (!ids.has(word)) throw new Error(`There is no token "${word}" in the vocabulary.`);
    return ids.get(word);
  }

  function shown({ step, steps, tau, tokens, logp }, given) {
    const rows = tokens.map((_, place) => logp.subarray(place * vocab, (place + 1) * vocab));
    const chances = (row) => likeliest(row).map((id) => [words[id], Math.exp(row[id])]);
    const sure = (place) => (given[place] === FREE ? Math.exp(rows[place][tokens[place]]) : 1);
    return {
      step, steps, tau, tokens,
      words: tokens.map((id) => words[id]),
      confidence: tokens.map((_, place) => sure(place)),
      alternatives: tokens.map((id, place) => {
        return given[place] === FREE ? chances(rows[place]) : [[words[id], 1]];
      }),
    };
  }

  return {
    copies: {
      "Copy link": (asked) =>
        `${location.href.split("#")[0]}#${encodeURIComponent(JSON.stringify(asked))}`,
    },
    note:
      "The model is inside this page, and nothing leaves it. Noise 3 is that of flowlm sample " +
      "--seed 3 on a CPU.",

    model: async () => ({ ...about, words }),

    async film(asked, late) {
      const given = asked.given.map(idOf);
      const frames = [];
      for (const frame of model.film({ ...asked, given })) {
        frames.push(shown(frame, given));
        await pause();
        if (late()) return null;
      }
      const { tokens } = frames.at(-1);
      return { frames, ended: { tokens, evaluations: asked.steps, valid: null } };
    },
  };
}

// Let the browser draw and hear, between two steps.
function pause() {
  return new Promise((resolve) => setTimeout(resolve));
}

function likeliest(row) {
  const best = [];
  for (let id = 0; id < row.length; id++) {
    if (best.length === ALTERNATIVES && row[id] <= row[best.at(-1)]) continue;
    let at = best.findIndex((other) => row[id] > row[other]);
    if (at < 0) at = best.length;
    best.splice(at, 0, id);
    best.length = Math.min(best.length, ALTERNATIVES);
  }
  return best;
}

const read = (id) => document.getElementById(id).textContent;
const model = new Model(JSON.parse(read("facts")), read("weights"));
globalThis.flowlm = model; // for the console: [...flowlm.film({ steps: 8 })]
start(writer(model));
