// A rewritten URL is refused: the app would serve another path than the signed one.
import assert from "node:assert/strict";
import { once } from "node:events";
import { createServer, get } from "node:http";
import { test } from "node:test";
import { fromNode } from "./akoya-verify.mjs";

/** Returns the target that `fromNode` reads after `rewrite` has changed the request, or the message of its Error. */
async function received(target, rewrite) {
  const server = createServer((req, res) => {
    rewrite(req);
    try {
      const { path, query } = fromNode(req);
      res.end(`${path}?${query}`);
    } catch (error) {
      res.writeHead(401).end(error.message);
    }
  }).listen(0, "127.0.0.1");
  await once(server, "listening");
  const [response] = await once(get({ port: server.address().port, path: target, agent: false }), "response");
  let text = "";
  for await (const chunk of response) text += chunk;
  server.close();
  return text;
}

/** Changes the request as Express does below `app.use(base, ...)`. */
const mounted = (base, rest) => (req) => Object.assign(req, { originalUrl: req.url, baseUrl: base, url: rest });

test("reads the target of a request that nobody rewrote", async () => {
  assert.equal(await received("/bank/a?x=1", () => {}), "/bank/a?x=1");
});

test("reads the whole target below a mount path of Express", async () => {
  assert.equal(await received("/bank/a?x=1", mounted("/bank", "/a?x=1")), "/bank/a?x=1");
  assert.equal(await received("/bank?x=1", mounted("/bank", "/?x=1")), "/bank?x=1");
});

test("refuses a rewritten target", async () => {
  for (const rewrite of [
    mounted("", "/admin"),
    mounted("/bank", "/admin?x=1"),
    mounted("/bank", "/a?x=2"),
    mounted("/other", "/a?x=1"),
  ]) {
    assert.equal(await received("/bank/a?x=1", rewrite), "the path was rewritten");
  }
});
