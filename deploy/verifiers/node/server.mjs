// Example app behind the gateway. Run it with:
//   AKOYA_JWKS=http://127.0.0.1:8080/akoya/jwks.json node server.mjs
import { createServer } from "node:http";
import { fromNode, jwksKeys, secretKey, verifyRequest } from "./akoya-verify.mjs";

const { AKOYA_JWKS, AKOYA_SECRET, PORT = "3000" } = process.env;
const shared = AKOYA_SECRET && secretKey(AKOYA_SECRET);
const keys = shared ? () => shared : jwksKeys(AKOYA_JWKS ?? "http://127.0.0.1:8080/akoya/jwks.json");

const server = createServer(async (req, res) => {
  try {
    const { owner, connector } = await verifyRequest(fromNode(req), keys);
    res.setHeader("content-type", "application/json").end(JSON.stringify({ owner, connector }));
  } catch (error) {
    console.error("refused:", error.message);
    res.writeHead(401).end("Unauthorized\n");
  }
});
server.listen(Number(PORT), "127.0.0.1", () => console.log(`listening on ${server.address().port}`));
