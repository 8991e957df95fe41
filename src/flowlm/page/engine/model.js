// A model that writes in this page.

import { Denoiser } from "./denoiser.js";
import { frames } from "./jumps.js";
import { Stream } from "./rng.js";
import { FREE } from "./space.js";
import { float32, unpacked } from "./weights.js";

export class Model {
  #denoiser;
  #way;

  // facts: what the export says of the model (model/page.py); packed: its weights.
  constructor(facts, packed) {
    const taus = facts.clock === null ? Float32Array.of(0, 1) : float32(facts.clock);
    this.#denoiser = new Denoiser({ ...facts, taus }, unpacked(packed, facts.shapes));
    this.#way = { gamma: 0, latest: 1, ...facts.sampler };
    this.facts = facts;
  }

  // Frames of one text: {step, steps, tau, tokens, logp}; logp is length x vocab, in nats.
  // given: ids of tokens, -1 where the model writes. The noise is that of a seed, or `noise`
  // (length x vocab) and, where it is renewed, what `fresh()` returns.
  film({ steps = 1, given, seed = 0, temperature, gamma, noise, fresh }) {
    const { length, vocab } = this.facts;
    const stream = new Stream(seed);
    const drawn = () => stream.normal(length, vocab);
    const way = { ...this.#way };
    if (temperature !== undefined) way.temperature = temperature;
    if (gamma !== undefined) way.gamma = gamma;
    const places = given ?? Array(length).fill(FREE);
    return frames(this.#denoiser, way, steps, places, noise ?? drawn(), fresh ?? drawn);
  }
}
