// Points of one-hot space: rows of v numbers, as the sum of noise, given tokens and predictions.

export const FREE = -1; // of a place where no token is given

const TOP_K = 256; // entries of summed predictions that are kept, as in chunked/points.py

export class Point {
  // rest: noise and given tokens; said: what predictions have added up to. Both length x vocab.
  constructor(rest, vocab) {
    this.rest = rest;
    this.said = new Float32Array(rest.length);
    this.vocab = vocab;
  }

  // Noise, with given tokens in their places.
  static start(noise, given, vocab) {
    const rest = Float32Array.from(noise);
    given.forEach((token, place) => {
      if (token === FREE) return;
      rest.fill(0, place * vocab, (place + 1) * vocab);
      rest[place * vocab + token] = 1;
    });
    return new Point(rest, vocab);
  }

  // Row `place` times `factor`, plus `shift` if there is one.
  write(place, factor, shift, out) {
    const first = place * this.vocab;
    for (let w = 0; w < this.vocab; w++) {
      const x = this.rest[first + w] + this.said[first + w];
      out[w] = factor * x + (shift ? shift[w] : 0);
    }
  }

  // shares.x times this row, shares.end times its prediction, and shares.noise times fresh noise.
  move(place, shares, logp, noise) {
    const first = place * this.vocab;
    for (let i = first; i < first + this.vocab; i++) {
      this.rest[i] = shares.x * this.rest[i] + (noise ? shares.noise * noise[i] : 0);
      this.said[i] = shares.x * this.said[i] + shares.end * Math.exp(logp[i]);
    }
    if (this.vocab > TOP_K) keepLargest(this.said.subarray(first, first + this.vocab));
  }
}

// The largest entries of a row stay, and the rest of its sum is spread evenly.
function keepLargest(row) {
  const least = Float32Array.from(row).sort()[row.length - TOP_K];
  let above = 0;
  for (const value of row) above += value > least;
  let ties = TOP_K - above; // of entries that equal the least one so many stay
  let others = 0;
  const stays = Uint8Array.from(row, (value) => value > least || (value === least && ties-- > 0));
  row.forEach((value, w) => { if (!stays[w]) others += value; });
  const even = others / (row.length - TOP_K);
  for (let w = 0; w < row.length; w++) if (!stays[w]) row[w] = even;
}
