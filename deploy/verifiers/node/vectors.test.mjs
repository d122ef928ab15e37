import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { test } from "node:test";
import { jwkKey, secretKey, verifyRequest } from "./akoya-verify.mjs";

const file = new URL("../../../tests/vectors/messages.json", import.meta.url);
const vectors = JSON.parse(readFileSync(process.env.AKOYA_VECTORS ?? file, "utf8"));
const known = new Map(vectors.keys.map((key) => [key.kid, key.secret ? secretKey(key.secret) : jwkKey(key.public_jwk)]));
const verifyCase = (one) => verifyRequest(one.request, (id) => known.get(id), { now: one.now, skew: vectors.skew });

for (const one of vectors.cases) {
  test(`verifies: ${one.name}`, async () => {
    const verified = await verifyCase(one);
    for (const [name, value] of Object.entries(one.says)) assert.deepEqual(verified[name], value, name);
  });
}

for (const one of vectors.attacks) {
  test(`refuses: ${one.name}`, async () => {
    await assert.rejects(verifyCase(one));
  });
}
