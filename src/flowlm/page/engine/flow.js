// The line from noise to text, and moves along it, as shares of a sum (core/flow.py, flow_map.py).

// beta_t = t / (1 - t)^2: a noisy row x speaks for token w with beta_t x_w nats.
export function beta(t) {
  return Math.min(t / (1 - t) ** 2, 1e4);
}

// kappa of the bridge from t to s: how much of the noise stays where both come from one text.
export function bridgeKappa(t, s) {
  return t < 1 ? Math.min((t * (1 - s)) / (s * (1 - t)), 1) : 0;
}

// X_{s,t}(x) = x + (t - s) / (1 - s) (delta - x).
export function jump(s, t) {
  const way = t > s ? (t - s) / (1 - s) : 0;
  return { x: 1 - way, end: way, noise: 0 };
}

// x_s from x_t on the line to `end`, of whose noise kappa stays and the rest is fresh.
export function step(t, s, kappa) {
  const stays = t < 1 ? ((1 - s) * kappa) / (1 - t) : 1;
  return { x: stays, end: s - stays * t, noise: (1 - s) * Math.sqrt(1 - kappa ** 2) };
}
