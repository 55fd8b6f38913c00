// Counts the words of a text: the body of a request is the text, the answer is JSON.
//
// `init`, `describe` and `infer` are what Firebox calls; `wit/function.wit` has the interface. In
// JavaScript, `list<u8>` is a Uint8Array, `u64` a BigInt, and an `error` is thrown.

export function statistics(text) {
  const counts = new Map();
  const words = text.toLowerCase().match(/[^\s.,;:!?()"“”]+/g) ?? [];
  for (const word of words) counts.set(word, (counts.get(word) ?? 0) + 1);
  const frequent = [...counts].sort(([, a], [, b]) => b - a).slice(0, 3);
  return {
    lines: text.split("\n").filter((line) => line !== "").length,
    words: words.length,
    most_frequent: frequent.map(([word, count]) => ({ word, count })),
  };
}

/** Runs before anything else. What is costly and needs no asset belongs at the top of the module. */
export function init() {}

/** What goes in and what comes out: here, raw bodies. */
export function describe() {
  const body = { name: "body", dtype: "bytes", shape: [1n] };
  return { inputs: [body], outputs: [body] };
}

/** Answers one request. */
export function infer(request) {
  return answer(statistics(textOf(request)));
}

/** The body. It is a tensor of bytes, each element of which has its length before it. */
function textOf(request) {
  const body = request.inputs.find(({ name }) => name === "body");
  if (!body) throw invalid("send a text as the body");
  try {
    return new TextDecoder("utf-8", { fatal: true }).decode(body.data.subarray(4));
  } catch {
    throw invalid("the body is not UTF-8");
  }
}

function answer(value) {
  const bytes = new TextEncoder().encode(JSON.stringify(value));
  const data = new Uint8Array(4 + bytes.length);
  new DataView(data.buffer).setUint32(0, bytes.length, true);
  data.set(bytes, 4);
  return {
    outputs: [{ name: "body", dtype: "bytes", shape: BigUint64Array.of(1n), data }],
    parameters: [{ name: "content-type", value: { tag: "text", val: "application/json" } }],
  };
}

/** The caller's mistake, answered with 400. Other exceptions are the function's own, and a 502. */
function invalid(message) {
  return { code: "invalid-input", message };
}
