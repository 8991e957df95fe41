// How time is spent: tau, the time by decoding error, against t, that of the line (core/clock.py).

// A piecewise linear table of the decoding error; the uniform clock is the table of two points.
export class Clock {
  #ts;
  #taus;

  // taus: clock times at even steps of t from 0 to 1.
  constructor(taus) {
    this.#taus = taus;
    this.#ts = Float32Array.from(taus, (_, i) => i / (taus.length - 1));
  }

  tau(t) {
    return interpolate(t, this.#ts, this.#taus);
  }

  t(tau) {
    return interpolate(tau, this.#taus, this.#ts);
  }

  // Clock times of `steps` even steps.
  grid(steps) {
    return Float32Array.from({ length: steps + 1 }, (_, i) => i / steps);
  }
}

// In float32 as in torch. Where the curve is flat the right end counts: tau = 1 is t = 1.
function interpolate(x, xs, ys) {
  let low = 0;
  let high = xs.length;
  while (low < high) {
    const middle = (low + high) >> 1;
    if (xs[middle] <= x) low = middle + 1;
    else high = middle;
  }
  const right = Math.min(Math.max(low, 1), xs.length - 1);
  const [x0, x1, y0, y1] = [xs[right - 1], xs[right], ys[right - 1], ys[right]];
  const share = x1 > x0 ? Math.min(Math.max((x - x0) / (x1 - x0), 0), 1) : 1;
  return Math.fround(y0 + share * (y1 - y0));
}
