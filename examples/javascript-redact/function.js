// The function: `{"texts": […], "kinds": […]}` in, the same texts without personal data out.
//
// The exports are those of the world in `wit/function.wit`. `Uint8Array`s are WIT's `list<u8>`, an
// object thrown is WIT's `error`.

import { kinds, redact } from "./redact.js";

const MOST_TEXTS = 1000;
const body = { name: "body", dtype: "bytes", shape: [1n] };

/** Nothing to prepare. */
export function init() {}

export function describe() {
  return { inputs: [body], outputs: [body] };
}

export function infer(request) {
  const { texts, wanted } = question(request);
  const answers = texts.map((text) => redact(text, wanted));
  const total = {};
  for (const { found } of answers) {
    for (const [kind, count] of Object.entries(found)) total[kind] = (total[kind] ?? 0) + count;
  }
  const data = element(JSON.stringify({ texts: answers.map(({ text }) => text), found: total }));
  const type = { name: "content-type", value: { tag: "text", val: "application/json" } };
  return { outputs: [{ ...body, shape: BigUint64Array.of(1n), data }], parameters: [type] };
}

function question(request) {
  const given = request.inputs.find(({ name }) => name === "body");
  if (!given || given.data.length < 4) throw invalid("send JSON as the body");
  let asked;
  try {
    // Each element of a tensor of bytes has its length before it.
    asked = JSON.parse(new TextDecoder("utf-8", { fatal: true }).decode(given.data.subarray(4)));
  } catch (error) {
    throw invalid(`the body is not JSON: ${error.message}`);
  }
  const texts = asked?.texts;
  if (!Array.isArray(texts) || !texts.every((text) => typeof text === "string")) {
    throw invalid('expected {"texts": ["…"]}, and optionally "kinds"');
  }
  if (texts.length > MOST_TEXTS) throw invalid(`${texts.length} texts are too many: send at most ${MOST_TEXTS}`);
  const wanted = asked.kinds ?? kinds;
  if (!Array.isArray(wanted)) throw invalid(`kinds must be a list, of ${kinds.join(", ")}`);
  const unknown = wanted.find((kind) => !kinds.includes(kind));
  if (unknown !== undefined) throw invalid(`there is no kind ${JSON.stringify(unknown)}: known are ${kinds.join(", ")}`);
  return { texts, wanted };
}

/** One element of a tensor of bytes. */
function element(text) {
  const bytes = new TextEncoder().encode(text);
  const data = new Uint8Array(4 + bytes.length);
  new DataView(data.buffer).setUint32(0, bytes.length, true);
  data.set(bytes, 4);
  return data;
}

/** The caller's mistake: answered with 400. */
function invalid(message) {
  return { code: "invalid-input", message };
}
