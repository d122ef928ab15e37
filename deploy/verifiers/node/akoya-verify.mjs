// Verifies the signature of Akoya Gateway (RFC 9421) with the library http-message-sig.
//
//   const keys = jwksKeys("https://app.example.com/akoya/jwks.json");
//   const verified = await verifyRequest(fromNode(req), keys);   // throws if the request cannot be verified
//   verified.owner, verified.connector, verified.id_token
import { createHash, createHmac, createPublicKey, timingSafeEqual, verify as verifySignatureWith } from "node:crypto";
import { verifySignature } from "http-message-sig";
import { parseDictionary, isInnerList } from "structured-headers";

const LABEL = "akoya";
const TAG = "akoya-gateway";
const REQUIRED = ["@method", "@authority", "@path", "@query"];
const ALGORITHMS = ["ed25519", "ecdsa-p256-sha256", "hmac-sha256"];

/** Returns the key of a public JWK. The algorithm is a property of the key, and a message cannot change it. */
export function jwkKey(jwk) {
  const ed25519 = jwk.kty === "OKP" && jwk.crv === "Ed25519";
  if (!ed25519 && !(jwk.kty === "EC" && jwk.crv === "P-256")) throw new Error("neither Ed25519 nor P-256");
  const key = createPublicKey({ key: jwk, format: "jwk" });
  return ed25519
    ? { algorithm: "ed25519", verify: (data, signature) => verifySignatureWith(null, data, key, signature) }
    : {
        algorithm: "ecdsa-p256-sha256",
        verify: (data, signature) =>
          signature.length === 64 && verifySignatureWith("sha256", data, { key, dsaEncoding: "ieee-p1363" }, signature),
      };
}

/** Returns the key of an hmac-sha256 secret: the text configured in the gateway. Surrounding white space is ignored. */
export function secretKey(text) {
  // The gateway rejects a byte order mark too. `trim` would remove it.
  if (text.startsWith("\ufeff")) throw new Error("the shared secret begins with a byte order mark");
  const secret = text.trim();
  if (Buffer.byteLength(secret) < 32 || secret.startsWith("-----BEGIN")) throw new Error("no shared secret of 32 bytes");
  return {
    algorithm: "hmac-sha256",
    verify(data, signature) {
      const expected = createHmac("sha256", secret).update(data).digest();
      return signature.length === expected.length && timingSafeEqual(expected, signature);
    },
  };
}

/**
 * Returns a function that finds keys of a JWK Set URL by ID. The set is cached for five minutes. Concurrent calls share
 * one fetch, and fetches are at least ten seconds apart. If a fetch fails, the old set stays in use. A signature that the
 * cached key does not verify causes a fetch too, because a key can be replaced under the same ID.
 */
export function jwksKeys(url, { maxAge = 300_000, throttle = 10_000, timeout = 5_000 } = {}) {
  let keys = new Map();
  let fetchedAt = -Infinity;
  let triedAt = -Infinity;
  let flight = null;
  const fetchSet = async () => {
    triedAt = Date.now();
    const response = await fetch(url, { redirect: "error", signal: AbortSignal.timeout(timeout) });
    if (!response.ok) throw new Error(`${url}: ${response.status}`);
    const fresh = new Map();
    for (const jwk of (await response.json()).keys) {
      try {
        fresh.set(jwk.kid, jwkKey(jwk));
      } catch {
        // Skip keys of unsupported types and keep the others (RFC 7517 section 5).
      }
    }
    keys = fresh;
    fetchedAt = Date.now();
  };
  const refresh = async () => {
    if (!flight && Date.now() - triedAt <= throttle) return;
    flight ??= fetchSet().finally(() => (flight = null));
    await flight.catch(() => {});
  };
  return async (keyId) => {
    if (Date.now() - fetchedAt > maxAge || !keys.has(keyId)) await refresh();
    const key = keys.get(keyId);
    return key && { ...key, verify: async (data, signature) => {
      if (key.verify(data, signature)) return true;
      await refresh();
      const other = keys.get(keyId);
      return other !== undefined && other !== key && other.algorithm === key.algorithm && other.verify(data, signature);
    } };
  };
}

/**
 * Returns the request as node:http received it. Works in Express too, also below `app.use("/bank", ...)`. Throws an
 * Error if req.url has been rewritten, because the app would then serve another path than the signed one.
 */
export function fromNode(req) {
  const target = req.originalUrl ?? req.url;
  const base = req.baseUrl ?? "";
  const rest = target.slice(base.length);
  // Express adds a leading slash to req.url if there is none after the mount path.
  if (!target.startsWith(base) || (req.url !== rest && req.url !== `/${rest}`)) throw new Error("the path was rewritten");
  const headers = [];
  for (let i = 0; i < req.rawHeaders.length; i += 2) headers.push([req.rawHeaders[i], req.rawHeaders[i + 1]]);
  const [path, ...query] = target.split("?");
  return { method: req.method, authority: req.headers.host ?? "", path, query: query.join("?"), headers };
}

/**
 * Verifies the request and returns what the gateway signed. Throws an Error if the request cannot be verified.
 * `keys` is a function from key ID to key. `now` is in Unix seconds. `skew` is the clock difference to tolerate, in
 * seconds.
 */
export async function verifyRequest(request, keys, { now = Date.now() / 1000, skew = 5 } = {}) {
  const authority = request.authority.toLowerCase();
  const fields = request.headers.map(([name, value]) => ({ name: name.toLowerCase(), value: value.replace(/^[ \t]+|[ \t]+$/g, "") }));
  const ours = ourFields(fields);
  const plain = (text) => /^[\x21-\x7e]*$/.test(text) && !text.includes("#");
  if (!/^[a-z0-9.\-_]+(:\d+)?$|^\[[0-9a-f:.]+\](:\d+)?$/.test(authority)) throw new Error("a malformed Host");
  // The URL parser would normalize a port with leading zeros and other spellings of an IP address.
  if (new URL(`http://${authority}`).host !== authority.replace(/:80$/, "")) throw new Error("an unusual Host");
  if (!plain(request.path) || !plain(request.query) || /^[^/]|\?/.test(request.path)) throw new Error("a malformed target");
  const query = request.query === "" ? "" : `?${request.query}`;
  // The scheme is not signed. The library needs one to parse the URL. With "http" it removes port 80, as RFC 9421
  // requires.
  const targetUri = `http://${authority}${request.path || "/"}${query}`;
  requireCanonicalBase64(fields);

  const verified = await verifySignature(
    { kind: "request", method: request.method, targetUri, fields: fields.filter(({ name }) => isSigned(name)) },
    {
      label: LABEL,
      policy: {
        algorithms: ALGORITHMS,
        requiredComponents: [...REQUIRED, ...ours.keys()],
        requiredParameters: ["created", "expires", "keyid", "tag"],
        clockSkew: skew,
        now,
      },
      resolveVerifier: async ({ parameters, components }) => {
        if (parameters.tag !== TAG) throw new Error("the tag of another application");
        if (parameters.expires < parameters.created || now >= parameters.expires + skew) throw new Error("expired");
        if (components.some((one) => Object.keys(one.parameters).length > 0)) throw new Error("a component with parameters");
        const key = await keys(parameters.keyid);
        if (!key) throw new Error(`no key ${parameters.keyid}`);
        return key;
      },
    },
  );
  return { ...claims(ours), nonce: verified.parameters.nonce, ...covers(verified, fields) };
}

/**
 * Returns the gateway headers by name. Throws if one occurs twice, or if a header has a name that a server could
 * normalize to that of a gateway header.
 */
function ourFields(fields) {
  const ours = new Map();
  for (const { name, value } of fields) {
    const folded = name.replace(/[^a-z0-9]/g, "-");
    const reserved = folded.startsWith("akoya-") || folded === "signature" || folded === "signature-input";
    if (reserved && folded !== name) throw new Error(`header ${name} could pass for ${folded}`);
    if (!name.startsWith("akoya-")) continue;
    if (ours.has(name)) throw new Error(`header ${name} is there twice`);
    ours.set(name, value);
  }
  return ours;
}

/** Returns whether the gateway signs this header. The library would refuse a request for any header that is not ASCII. */
function isSigned(name) {
  return name.startsWith("akoya-") || ["signature", "signature-input", "content-digest"].includes(name);
}

/** Throws unless base64 in Signature is in canonical form. Other forms would allow many spellings of one signature. */
function requireCanonicalBase64(fields) {
  for (const { value } of fields.filter(({ name }) => name === "signature")) {
    for (const [, octets] of value.matchAll(/:([^:]*):/g)) {
      if (Buffer.from(octets, "base64").toString("base64") !== octets) throw new Error("Signature is not canonical base64");
    }
  }
}

function claims(ours) {
  const text = (name) => ours.get(`akoya-${name}`) ?? null;
  const expires = text("expires");
  return {
    owner: decodeURIComponent(text("owner") ?? ""),
    connector: text("connector"),
    id_token: text("id-token"),
    expires: expires === null ? null : Number(expires),
    scope: (text("scope") ?? "").split(" ").filter(Boolean),
    environment: text("environment"),
    connections: connections(text("connections") ?? ""),
    provider: text("provider"),
    grant: text("grant"),
    consent: text("consent"),
    interaction_type: text("interaction-type"),
    last_access: text("last-access"),
    id_tokens: idTokens(text("id-tokens") ?? ""),
  };
}

function connections(value) {
  const found = [];
  for (const [connector, member] of value === "" ? [] : parseDictionary(value)) {
    for (const [state, parameters] of isInnerList(member) ? member[0] : [member]) {
      const [expires, id] = ["expires", "id"].map((name) => parameters.get(name) ?? null);
      found.push({ connector, state: state.toString(), expires, id });
    }
  }
  return found;
}

function idTokens(value) {
  const members = value === "" ? [] : [...parseDictionary(value)];
  return Object.fromEntries(members.map(([connector, member]) => [connector, String(member[0])]));
}

function covers(verified, fields) {
  if (!verified.components.some((one) => one.name === "content-digest")) return {};
  return { content_digest: fields.filter((one) => one.name === "content-digest").map((one) => one.value).join(", ") };
}

/** Returns whether the body matches a signed Content-Digest, which must be one sha-256 digest (RFC 9530). */
export function bodyMatches(contentDigest, body) {
  const expected = createHash("sha256").update(body).digest("base64");
  return contentDigest === `sha-256=:${expected}:`;
}
