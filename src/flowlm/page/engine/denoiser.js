// The network as a sampler asks it: log-probabilities of the clean tokens at a point and two times.

import { Clock } from "./clock.js";
import { DiT } from "./dit.js";
import { Posterior } from "./encoder.js";
import { beta } from "./flow.js";
import { linear, logSoftmax } from "./linear.js";

export class Denoiser {
  // facts: `method` and `size` of the experiment, `length`, `vocab`, and `taus`, the clock's table.
  constructor(facts, weights) {
    const { method, size, length, vocab } = facts;
    Object.assign(this, { length, vocab, clock: new Clock(facts.taus) });
    this.hasEvidence = method.input.kind === "BayesInput";
    this.times = method.kind === "FlowMap" ? 2 : 1;
    this.size = size;
    this.weights = weights;
    this.encoder = new Posterior(weights, size.width);
    this.network = new DiT(weights, size, length);
  }

  // delta_{s,t}(x), length x vocab; of a flow D_s(x), whatever t is. now, then: clock times s and t
  // of every place, 1 where a token is given. temperature: of the context, or of whole rows.
  twoTime(x, now, then, temperature, cools) {
    const { length, vocab, size } = this;
    const ts = now.map((tau) => this.clock.t(tau));
    const given = now.some((tau) => tau === 1) ? now.map((tau) => Number(tau === 1)) : null;
    const features = new Float32Array(length * size.width);
    this.encoder.views(x, ts, features);
    const ends = [now, then].slice(0, this.times).map((taus) => Math.min(...taus));
    const conditions = this.network.conditions(ends, given);
    const logits = new Float32Array(length * vocab);
    const y = this.network.trunk(features, conditions, given);
    const [weight, bias] = ["head.weight", "head.bias"].map((name) => this.weights.get(name));
    linear(y, length, weight, bias, size.width, vocab, logits);
    const cap = size.output_cap;
    if (cap !== null) logits.forEach((z, i) => { logits[i] = cap * Math.tanh(z / cap); });
    const betas = this.#betas(ts, conditions, given);
    const evidence = new Float32Array(vocab);
    for (let place = 0; place < length; place++) {
      const row = logits.subarray(place * vocab, (place + 1) * vocab);
      if (betas) x.write(place, betas[place] / (cools === "row" ? temperature : 1), null, evidence);
      for (let w = 0; w < vocab; w++) row[w] = row[w] / temperature + evidence[w];
      logSoftmax(row);
    }
    return logits;
  }

  // By how much every row is evidence for its own token; null where the network reads that itself.
  #betas(ts, conditions, given) {
    if (!this.hasEvidence) return null;
    const extra =
      this.times === 2 ? this.network.modulation("sharper", conditions) : conditions.map(() => [0]);
    return ts.map((t, place) => beta(t) + extra[given ? given[place] : 0][0]);
  }
}
