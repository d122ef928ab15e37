// Signs as the gateway would, with each of two npm libraries: node sign.mjs VECTORS NOW -> JSON lines of requests.
import { createPrivateKey, sign as cryptoSign, webcrypto } from "node:crypto";
import { readFileSync } from "node:fs";
import { createRequire } from "node:module";

const require = createRequire(process.env.AKOYA_NODE_MODULES);
const { createSignature, webcrypto: provider } = await import(require.resolve("http-message-sig").replace(".cjs", ".mjs"));
const { httpbis, createSigner } = require("http-message-signatures");

const vectors = JSON.parse(readFileSync(process.argv[2], "utf8"));
const now = Number(process.argv[3]);
const fields = [
  { name: "akoya-owner", value: "o1" },
  { name: "akoya-connector", value: "mikomo" },
];
const components = [...fields.map((one) => one.name), "@method", "@authority", "@path", "@query"];
const target = "http://app.example.com:8080/a%20b?x=%2F&y";
const request = { method: "GET", authority: "app.example.com:8080", path: "/a%20b", query: "x=%2F&y" };
const print = (library, keyid, signature, signatureInput) =>
  console.log(
    JSON.stringify({
      library,
      keyid,
      ...request,
      headers: [...fields.map((one) => [one.name, one.value]), ["Signature-Input", signatureInput], ["Signature", signature]],
    }),
  );

for (const { kid, algorithm, secret, private_jwk } of vectors.keys) {
  if (algorithm === "ed25519") {
    const key = await webcrypto.subtle.importKey("jwk", private_jwk, { name: "Ed25519" }, false, ["sign"]);
    const made = await createSignature(
      { kind: "request", method: "GET", targetUri: target, fields },
      {
        label: "akoya",
        components,
        parameters: { created: now, expires: now + 60, keyid: kid, alg: algorithm, nonce: "n1", tag: "akoya-gateway" },
        signer: provider.signer(key),
      },
    );
    print("http-message-sig", kid, made.signature, made.signatureInput);
  }
  const key = secret ? createSigner(secret, algorithm, kid) : signerOf(private_jwk, algorithm, kid);
  const signed = await httpbis.signMessage(
    {
      key,
      name: "akoya",
      fields: components,
      params: ["created", "expires", "keyid", "alg", "nonce", "tag"],
      paramValues: { created: new Date(now * 1000), expires: new Date((now + 60) * 1000), nonce: "n1", tag: "akoya-gateway" },
    },
    { method: "GET", url: target, headers: Object.fromEntries(fields.map((one) => [one.name, one.value])) },
  );
  print("http-message-signatures", kid, signed.headers["Signature"], signed.headers["Signature-Input"]);
}

function signerOf(jwk, alg, id) {
  const key = createPrivateKey({ key: jwk, format: "jwk" });
  const sign = async (data) =>
    alg === "ed25519" ? cryptoSign(null, data, key) : cryptoSign("sha256", data, { key, dsaEncoding: "ieee-p1363" });
  return { id, alg, sign };
}
