// Travelling by jumps of a flow map or a flow, with fresh noise between them (sampling/jump.py).

import { bridgeKappa, jump, step } from "./flow.js";
import { FREE, Point } from "./space.js";

const RATE = 8;

// Frames of one text from its first noise; `fresh()` gives noise wherever it is renewed.
// way: kind (Jumps, or Euler, which aims nowhere), gamma (null for as much noise as a step asks
// for), latest, temperature, cools.
export function* frames(denoiser, way, steps, given, noise, fresh) {
  const { clock, length, vocab } = denoiser;
  const x = Point.start(noise, given, vocab);
  const grid = clock.grid(steps);
  const at = (tau) => given.map((token) => (token === FREE ? tau : 1));
  for (let i = 0; i < steps; i++) {
    const [now, then] = [at(grid[i]), at(grid[i + 1])];
    const ends = now.map((tau, place) => aimed(clock, way, tau, then[place]));
    const logp = denoiser.twoTime(x, now, ends, way.temperature, way.cools);
    const tokens = given.map((token, place) => {
      return token === FREE ? likeliest(logp.subarray(place * vocab, (place + 1) * vocab)) : token;
    });
    yield { step: i, steps, tau: Math.min(...now), tokens, logp };
    if (i === steps - 1) return;
    const renewed = way.gamma === 0 ? null : fresh();
    for (let place = 0; place < length; place++) {
      const [t, s] = [clock.t(now[place]), clock.t(then[place])];
      const shares = renewed ? step(t, s, kept(way, t, s)) : jump(t, s);
      x.move(place, shares, logp, renewed);
    }
  }
}

// The clock time at which a jump aims that comes back with fresh noise.
function aimed(clock, way, now, then) {
  if (way.kind === "Euler") return now;
  const [t, s] = [clock.t(now), clock.t(then)];
  const end = way.gamma === 0 ? then : clock.tau(Math.fround(1 - (1 - s) * kept(way, t, s)));
  return way.latest < 1 ? Math.max(Math.min(end, way.latest), now) : end;
}

// kappa: how much of the noise stays.
function kept(way, t, s) {
  return way.gamma === null ? bridgeKappa(t, s) ** RATE : Math.sqrt(1 - way.gamma ** 2);
}

function likeliest(row) {
  let best = 0;
  for (let w = 1; w < row.length; w++) if (row[w] > row[best]) best = w;
  return best;
}
