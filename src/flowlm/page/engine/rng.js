// Randomness: the streams of core/rng.py on a CPU, so that seeds are those of `flowlm sample`.

const GOLDEN = 0x9e3779b1; // as in chunked/points.py
const DRAW_NUMEL = 2 ** 20;

// The stream of one text: noise after noise, each a function of a seed that is passed on.
export class Stream {
  #seed;

  constructor(seed) {
    this.#seed = family([1, seed]);
  }

  // N(0, I), length x vocab, drawn as many whole rows at a time as have DRAW_NUMEL numbers.
  normal(length, vocab) {
    const seed = this.#seed;
    this.#seed = (Math.imul(seed, 1664525) + 1013904223) >>> 0;
    const rows = new Float32Array(length * vocab);
    const draw = vocab * Math.max(1, Math.floor(DRAW_NUMEL / vocab));
    for (let first = 0, number = 1; first < rows.length; first += draw, number++) {
      const twister = new Twister((seed + Math.imul(number, GOLDEN)) >>> 0);
      fillNormal(rows.subarray(first, first + draw), twister);
    }
    return rows;
  }
}

// Numbers in pairs by Box and Muller, eight pairs at a time; what is left at the end is drawn with
// the numbers before it again. At least 16 numbers.
function fillNormal(rows, twister) {
  for (let i = 0; i < rows.length; i++) rows[i] = twister.uniform();
  for (let i = 0; i + 16 <= rows.length; i += 16) turn(rows, i);
  if (rows.length % 16) {
    const last = rows.length - 16;
    for (let i = last; i < rows.length; i++) rows[i] = twister.uniform();
    turn(rows, last);
  }
}

function turn(rows, first) {
  for (let i = first; i < first + 8; i++) {
    const radius = Math.sqrt(-2 * Math.log(1 - rows[i]));
    const angle = 2 * Math.PI * rows[i + 8];
    rows[i] = radius * Math.cos(angle);
    rows[i + 8] = radius * Math.sin(angle);
  }
}

// MT19937 (Matsumoto & Nishimura 1998).
class Twister {
  #state = new Uint32Array(624);
  #next = 624;

  constructor(seed) {
    const state = this.#state;
    state[0] = seed;
    for (let i = 1; i < 624; i++) {
      state[i] = Math.imul(1812433253, state[i - 1] ^ (state[i - 1] >>> 30)) + i;
    }
  }

  // A number of 24 bits in [0, 1).
  uniform() {
    return (this.#bits() & 0xffffff) / 2 ** 24;
  }

  #bits() {
    if (this.#next === 624) this.#twist();
    let y = this.#state[this.#next++];
    y ^= y >>> 11;
    y ^= (y << 7) & 0x9d2c5680;
    y ^= (y << 15) & 0xefc60000;
    return y ^ (y >>> 18);
  }

  #twist() {
    const state = this.#state;
    for (let i = 0; i < 624; i++) {
      const y = (state[i] & 0x80000000) | (state[(i + 1) % 624] & 0x7fffffff);
      state[i] = state[(i + 397) % 624] ^ (y >>> 1) ^ (y & 1 ? 0x9908b0df : 0);
    }
    this.#next = 0;
  }
}

// The first word of numpy's SeedSequence of a few 32-bit words (O'Neill 2015), at most four.
function family(words) {
  let multiplier = 0x43b0d7e5;
  const hash = (value) => {
    value ^= multiplier;
    multiplier = Math.imul(multiplier, 0x931e8875);
    value = Math.imul(value, multiplier);
    return value ^ (value >>> 16);
  };
  const mix = (x, y) => {
    const mixed = Math.imul(0xca01f9dd, x) - Math.imul(0x4973f715, y);
    return mixed ^ (mixed >>> 16);
  };
  const pool = [0, 1, 2, 3].map((i) => hash(words[i] ?? 0));
  for (let from = 0; from < 4; from++) {
    for (let to = 0; to < 4; to++) if (from !== to) pool[to] = mix(pool[to], hash(pool[from]));
  }
  const word = Math.imul(pool[0] ^ 0x8b51f9dd, Math.imul(0x8b51f9dd, 0x58f38ded));
  return (word ^ (word >>> 16)) >>> 0;
}
