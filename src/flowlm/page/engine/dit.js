// The trunk: a diffusion transformer that reads one or two clock times (nn/dit.py).

import { attention, rotaryTables, rotate } from "./attention.js";
import { gelu, linear, silu } from "./linear.js";

const WAVES = 128;
const EPSILON = 1e-5; // that of a layer norm

export class DiT {
  #weights;
  #size;
  #length;
  #rotary;
  #room; // arrays that every pass writes anew

  constructor(weights, size, length) {
    this.#weights = weights;
    this.#size = size;
    this.#length = length;
    this.#rotary =
      size.positions === "rotary" ? rotaryTables(length, size.width / size.heads) : null;
    const rows = (width) => new Float32Array(length * width);
    const d = size.width;
    this.#room = { y: rows(d), mixed: rows(d), qkv: rows(3 * d), hidden: rows(4 * d) };
  }

  // Embedded times: of all places or, with `given`, also of text, whose times are 1.
  conditions(taus, given) {
    const now = this.#embedded(taus);
    return given ? [now, this.#embedded(taus.map(() => 1))] : [now];
  }

  #embedded(taus) {
    const width = this.#size.condition;
    const sum = new Float32Array(width);
    const [waves, hidden, last] = [2 * WAVES, width, width].map((n) => new Float32Array(n));
    taus.forEach((tau, i) => {
      for (let w = 0; w < WAVES; w++) {
        const angle = tau * Math.exp((-Math.log(10_000) * w) / WAVES);
        waves[w] = Math.cos(angle);
        waves[WAVES + w] = Math.sin(angle);
      }
      this.#linear(`times.${i}.inner`, waves, 1, hidden);
      this.#linear(`times.${i}.last`, hidden.map(silu), 1, last);
      for (let k = 0; k < width; k++) sum[k] += last[k];
    });
    return sum.map(silu);
  }

  // Numbers of each condition, by a linear layer.
  modulation(name, conditions) {
    const to = this.#weights.get(`${name}.bias`).length;
    return conditions.map((condition) => {
      const out = new Float32Array(to);
      this.#linear(name, condition, 1, out);
      return out;
    });
  }

  // Features of the encoder, which are changed, to features of the head. given: 1 where a token is
  // text, and so which of the conditions is that of a place; null without given tokens.
  trunk(x, conditions, given) {
    if (this.#size.reach) this.#near(x);
    const places = this.#weights.get("places");
    if (places) for (let i = 0; i < x.length; i++) x[i] += places[i];
    for (let b = 0; b < this.#size.blocks; b++) this.#block(`blocks.${b}`, x, conditions, given);
    this.#modulated("norm", x, this.modulation("modulation", conditions), given, 0);
    return this.#room.y;
  }

  // y_i + sum_k A_k y_(i+k), k from -reach to reach: a product with the neighbours side by side.
  #near(x) {
    const { width, reach } = this.#size;
    const taps = 2 * reach + 1;
    const seen = new Float32Array(this.#length * width * taps);
    for (let i = 0; i < this.#length; i++) {
      for (let k = 0; k < taps; k++) {
        const from = i + k - reach;
        if (from < 0 || from >= this.#length) continue;
        for (let c = 0; c < width; c++) seen[(i * width + c) * taps + k] = x[from * width + c];
      }
    }
    const { mixed } = this.#room;
    const weight = this.#weights.get("near.mix.weight");
    linear(seen, this.#length, weight, null, width * taps, width, mixed);
    for (let i = 0; i < x.length; i++) x[i] += mixed[i];
  }

  #block(name, x, conditions, given) {
    const { width, heads, attention_cap: cap } = this.#size;
    const { y, mixed, qkv, hidden } = this.#room;
    const modulation = this.modulation(`${name}.modulation`, conditions);
    this.#modulated(`${name}.norm1`, x, modulation, given, 0);
    this.#linear(`${name}.attention.qkv`, y, this.#length, qkv);
    if (this.#rotary) rotate(qkv, this.#length, width, heads, this.#rotary);
    attention(qkv, this.#length, width, heads, cap, mixed);
    this.#linear(`${name}.attention.out`, mixed, this.#length, y);
    this.#gated(x, y, modulation, given, 2);
    this.#modulated(`${name}.norm2`, x, modulation, given, 3);
    this.#linear(`${name}.mlp.0`, y, this.#length, hidden);
    for (let i = 0; i < hidden.length; i++) hidden[i] = gelu(hidden[i]);
    this.#linear(`${name}.mlp.2`, hidden, this.#length, y);
    this.#gated(x, y, modulation, given, 5);
  }

  // room.y = shift + norm(x) (1 + scale); shift is part `part` of the modulation, scale the next.
  #modulated(name, x, modulation, given, part) {
    const { width } = this.#size;
    const weight = this.#weights.get(`${name}.weight`);
    for (let place = 0; place < this.#length; place++) {
      const numbers = modulation[given ? given[place] : 0];
      const first = place * width;
      let mean = 0;
      for (let k = 0; k < width; k++) mean += x[first + k] / width;
      let variance = 0;
      for (let k = 0; k < width; k++) variance += (x[first + k] - mean) ** 2 / width;
      const scale = 1 / Math.sqrt(variance + EPSILON);
      for (let k = 0; k < width; k++) {
        const normed = (x[first + k] - mean) * scale * weight[k];
        const shift = numbers[part * width + k];
        this.#room.y[first + k] = shift + normed * (1 + numbers[(part + 1) * width + k]);
      }
    }
  }

  // x += gate y.
  #gated(x, y, modulation, given, part) {
    const { width } = this.#size;
    for (let place = 0; place < this.#length; place++) {
      const numbers = modulation[given ? given[place] : 0];
      for (let k = 0; k < width; k++) {
        x[place * width + k] += numbers[part * width + k] * y[place * width + k];
      }
    }
  }

  #linear(name, x, n, out) {
    const weight = this.#weights.get(`${name}.weight`);
    const bias = this.#weights.get(`${name}.bias`) ?? null;
    linear(x, n, weight, bias, x.length / n, out.length / n, out);
  }
}
