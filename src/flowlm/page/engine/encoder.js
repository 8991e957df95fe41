// From noisy rows to features: two views of the posterior of each row's token (nn/encoder.py).

import { beta } from "./flow.js";
import { linear, logSoftmax, transposed } from "./linear.js";

const MIN_BETA = 3;
const EPSILON = 2 ** -23; // that of rms_norm in float32

export class Posterior {
  #logPrior;
  #columns; // the token table, transposed: d x v
  #width;
  #known; // prior @ E, what is known without the row

  constructor(weights, width) {
    this.#logPrior = weights.get("encoder.log_prior");
    this.#width = width;
    const vocab = this.#logPrior.length;
    this.#columns = transposed(weights.get("encoder.table"), vocab, width);
    this.#known = new Float32Array(width);
    linear(this.#logPrior.map(Math.exp), 1, this.#columns, null, vocab, width, this.#known);
  }

  // sqrt(d) p @ E + normalised((p - prior) @ E), p = softmax(max(beta, MIN_BETA) x + log prior).
  views(x, ts, out) {
    const vocab = this.#logPrior.length;
    const p = new Float32Array(ts.length * vocab);
    ts.forEach((t, place) => {
      const row = p.subarray(place * vocab, (place + 1) * vocab);
      x.write(place, Math.max(beta(t), MIN_BETA), this.#logPrior, row);
      logSoftmax(row);
    });
    for (let i = 0; i < p.length; i++) p[i] = Math.exp(p[i]);
    linear(p, ts.length, this.#columns, null, vocab, this.#width, out);
    for (let place = 0; place < ts.length; place++) this.#both(out, place * this.#width);
  }

  #both(mean, first) {
    const width = this.#width;
    let square = 0;
    for (let k = 0; k < width; k++) square += (mean[first + k] - this.#known[k]) ** 2;
    const scale = 1 / Math.sqrt(square / width + EPSILON);
    const root = Math.sqrt(width);
    for (let k = 0; k < width; k++) {
      const deviation = mean[first + k] - this.#known[k];
      mean[first + k] = root * mean[first + k] + scale * deviation;
    }
  }
}
