// Says which request it serves, with the middleware by which Express apps take another method.
import express from "express";
import methodOverride from "method-override";

const app = express();
app.set("trust proxy", true);
for (const name of ["X-HTTP-Method", "X-HTTP-Method-Override", "X-Method-Override"]) app.use(methodOverride(name, { methods: null }));
app.use((req, res) => res.json({ path: req.path, mount: req.baseUrl, method: req.method, user: req.headers["remote-user"] ?? null }));
app.listen(Number(process.argv[2]), "127.0.0.1");
