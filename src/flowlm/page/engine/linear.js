// The one matrix product, and what is done to its rows.

// out (n x to) = x (n x from) W^T + bias, W (to x from): two rows by four columns at a time.
export function linear(x, n, weight, bias, from, to, out) {
  for (let r = 0; r < n; r += 2) {
    const a = r * from;
    const b = Math.min(r + 1, n - 1) * from; // past the end the last row is computed again
    for (let c = 0; c < to; c += 4) {
      const w0 = c * from;
      const w1 = Math.min(c + 1, to - 1) * from;
      const w2 = Math.min(c + 2, to - 1) * from;
      const w3 = Math.min(c + 3, to - 1) * from;
      let a0 = 0, a1 = 0, a2 = 0, a3 = 0, b0 = 0, b1 = 0, b2 = 0, b3 = 0;
      for (let k = 0; k < from; k++) {
        const p = x[a + k], q = x[b + k];
        const u0 = weight[w0 + k], u1 = weight[w1 + k], u2 = weight[w2 + k], u3 = weight[w3 + k];
        a0 += p * u0; a1 += p * u1; a2 += p * u2; a3 += p * u3;
        b0 += q * u0; b1 += q * u1; b2 += q * u2; b3 += q * u3;
      }
      put(out, r * to + c, to - c, a0, a1, a2, a3);
      if (r + 1 < n) put(out, (r + 1) * to + c, to - c, b0, b1, b2, b3);
    }
  }
  if (bias) for (let i = 0, c = 0; i < n * to; i++, c = c + 1 === to ? 0 : c + 1) out[i] += bias[c];
}

function put(out, at, room, s0, s1, s2, s3) {
  out[at] = s0;
  if (room > 1) out[at + 1] = s1;
  if (room > 2) out[at + 2] = s2;
  if (room > 3) out[at + 3] = s3;
}

export function transposed(matrix, rows, columns) {
  const out = new Float32Array(matrix.length);
  for (let r = 0; r < rows; r++) {
    for (let c = 0; c < columns; c++) out[c * rows + r] = matrix[r * columns + c];
  }
  return out;
}

// A row of logits becomes log-probabilities, in place.
export function logSoftmax(row) {
  let top = -Infinity;
  for (const x of row) if (x > top) top = x;
  let sum = 0;
  for (const x of row) sum += Math.exp(x - top);
  const shift = top + Math.log(sum);
  for (let i = 0; i < row.length; i++) row[i] -= shift;
}

export const silu = (x) => x / (1 + Math.exp(-x));

// GELU by tanh.
export function gelu(x) {
  return 0.5 * x * (1 + Math.tanh(Math.sqrt(2 / Math.PI) * (x + 0.044715 * x * x * x)));
}
