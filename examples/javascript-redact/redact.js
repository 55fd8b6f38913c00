// What is personal in a text, and what stands in its place. The engine in the component knows no
// `\p{…}` in regular expressions.

/**
 * Kinds of personal data. Where two overlap, the one that is named first is masked. At most 64
 * characters stand before an address's @ (RFC 5321): without a bound, a long text would take time by the
 * square of its length.
 */
const KINDS = [
  { kind: "email", pattern: /[^\s@<>()[\]:;,"']{1,64}@[^\s@<>()[\]:;,"'.]+(?:\.[^\s@<>()[\]:;,"'.!?]+)+/g },
  { kind: "iban", pattern: /\b[A-Z]{2}\d{2}(?: ?[A-Z0-9]{4}){2,7}(?: ?[A-Z0-9]{1,3})?\b/g, holds: isIban },
  { kind: "card", pattern: /\b\d(?:[ -]?\d){12,18}\b/g, holds: isCardNumber },
  { kind: "ip", pattern: /\b(?:\d{1,3}\.){3}\d{1,3}\b/g, holds: isAddress },
  { kind: "phone", pattern: /(?<!\w)\+?\(?\d(?:[ ()\/.-]{0,2}\d){7,14}(?!\w)/g, holds: isPhoneNumber },
];

export const kinds = KINDS.map(({ kind }) => kind);

/**
 * The text with personal data masked as `[kind]`, and how many of each kind there were.
 *
 * @param {string} text
 * @param {string[]} wanted the kinds to look for
 * @returns {{ text: string, found: Record<string, number> }}
 */
export function redact(text, wanted = kinds) {
  const found = {};
  for (const { kind, pattern, holds } of KINDS) {
    if (!wanted.includes(kind)) continue;
    text = text.replace(pattern, (match) => {
      if (holds && !holds(match)) return match;
      found[kind] = (found[kind] ?? 0) + 1;
      return `[${kind}]`;
    });
  }
  return { text, found };
}

/** By the check digit of ISO/IEC 7812, Luhn's. */
function isCardNumber(match) {
  const digits = match.replace(/\D/g, "");
  const sum = [...digits].reverse().reduce((sum, digit, place) => {
    const value = Number(digit) * (1 + (place % 2));
    return sum + (value > 9 ? value - 9 : value);
  }, 0);
  return sum % 10 === 0;
}

/** By the check digits of ISO 13616: the number they make leaves 1 when divided by 97. */
function isIban(match) {
  const letters = match.replace(/ /g, "");
  if (letters.length < 15 || letters.length > 34) return false;
  const turned = letters.slice(4) + letters.slice(0, 4);
  let rest = 0;
  for (const letter of turned) {
    for (const digit of String(parseInt(letter, 36))) rest = (rest * 10 + Number(digit)) % 97;
  }
  return rest === 1;
}

function isAddress(match) {
  return match.split(".").every((part) => Number(part) <= 255);
}

/** Eight digits and more are many things; a number to call is written with a plus, a leading 0 or in groups. */
function isPhoneNumber(match) {
  return /^\+|^\(?0/.test(match) || /\d[ ()\/.-]+\d+[ ()\/.-]+\d/.test(match);
}
