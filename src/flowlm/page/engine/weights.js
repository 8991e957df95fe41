// Weights as the page carries them: float16 in base64, one tensor after the other.

// Tensors by name, widened to float32. shapes: pairs of a name and a count of numbers.
export function unpacked(base64, shapes) {
  const halves = new Uint16Array(bytesOf(base64).buffer);
  const found = new Map();
  let first = 0;
  for (const [name, count] of shapes) {
    found.set(name, Float32Array.from(halves.subarray(first, first + count), widened));
    first += count;
  }
  if (first !== halves.length) throw new Error("The weights of this page are damaged.");
  return found;
}

export function float32(base64) {
  return new Float32Array(bytesOf(base64).buffer);
}

function bytesOf(base64) {
  return Uint8Array.from(atob(base64.trim()), (character) => character.charCodeAt(0));
}

function widened(half) {
  const sign = half & 0x8000 ? -1 : 1;
  const exponent = (half >> 10) & 31;
  const fraction = half & 1023;
  return sign * (exponent ? (1024 + fraction) * 2 ** (exponent - 25) : fraction * 2 ** -24);
}
