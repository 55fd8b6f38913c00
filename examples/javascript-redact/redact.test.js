import assert from "node:assert/strict";
import { test } from "node:test";

import { redact } from "./redact.js";

test("each kind is masked and counted", () => {
  const { text, found } = redact(
    "Mail ada@example.org or call +44 20 7946 0958; paid with 4111 1111 1111 1111 from 192.0.2.7, IBAN DE89 3704 0044 0532 0130 00.",
  );
  assert.equal(text, "Mail [email] or call [phone]; paid with [card] from [ip], IBAN [iban].");
  assert.deepEqual(found, { email: 1, iban: 1, card: 1, ip: 1, phone: 1 });
});

test("what only looks like it stays", () => {
  for (const text of ["build 4111111111111112 of 2024", "version 1.2.3.400", "order 12345678"]) {
    assert.equal(redact(text).text, text);
  }
});

test("kinds that are not asked for stay", () => {
  assert.equal(redact("ada@example.org, 192.0.2.7", ["ip"]).text, "ada@example.org, [ip]");
});

test("a long text takes time in proportion to its length", () => {
  const began = performance.now();
  for (const piece of ["a", "a.", "a@", "0 "]) redact(piece.repeat(100_000));
  assert.ok(performance.now() - began < 2000);
});
