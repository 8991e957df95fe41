// Multi-head self-attention over all places, with rotary positions or none (nn/attention.py).

// qkv (l x 3d, rows ordered q | k | v, head, k) to out (l x d). cap: that of the logits, or null.
export function attention(qkv, length, width, heads, cap, out) {
  const per = width / heads;
  const scores = new Float64Array(length);
  out.fill(0);
  for (let head = 0; head < heads; head++) {
    for (let i = 0; i < length; i++) {
      const q = 3 * width * i + per * head;
      let top = -Infinity;
      for (let j = 0; j < length; j++) {
        const k = 3 * width * j + width + per * head;
        let product = 0;
        for (let c = 0; c < per; c++) product += qkv[q + c] * qkv[k + c];
        product /= Math.sqrt(per);
        scores[j] = cap === null ? product : cap * Math.tanh(product / cap);
        if (scores[j] > top) top = scores[j];
      }
      let sum = 0;
      for (let j = 0; j < length; j++) sum += scores[j] = Math.exp(scores[j] - top);
      const to = width * i + per * head;
      for (let j = 0; j < length; j++) {
        const share = scores[j] / sum;
        const v = 3 * width * j + 2 * width + per * head;
        for (let c = 0; c < per; c++) out[to + c] += share * qkv[v + c];
      }
    }
  }
}

// cos and sin of position / 10000^(2j/k), length x k/2 each.
export function rotaryTables(length, per) {
  const half = per / 2;
  const angle = (_, i) => Math.fround(Math.floor(i / half) * 10000 ** ((-2 * (i % half)) / per));
  const angles = Float32Array.from({ length: length * half }, angle);
  return { cos: angles.map(Math.cos), sin: angles.map(Math.sin) };
}

// Turn queries and keys in place; dimension j of a head is paired with j + k/2.
export function rotate(qkv, length, width, heads, { cos, sin }) {
  const half = width / heads / 2;
  for (let i = 0; i < length; i++) {
    for (let part = 0; part < 2 * heads; part++) { // all heads of q, then all of k
      const first = 3 * width * i + 2 * half * part;
      for (let j = 0; j < half; j++) {
        const left = qkv[first + j];
        const right = qkv[first + half + j];
        const [c, s] = [cos[half * i + j], sin[half * i + j]];
        qkv[first + j] = left * c - right * s;
        qkv[first + half + j] = right * c + left * s;
      }
    }
  }
}
