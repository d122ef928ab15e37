"""Runs the code that the README gives to app authors as it is; only the gateway's address is changed."""

from __future__ import annotations

import json
import re
import time
from pathlib import Path

from akoya_gateway.signing import jwks, signer
from tests.support.signing import FULL, signing
from tests.verify.languages import (
    ROOT,
    VERIFIERS,
    app_server,
    change_owner,
    fetch,
    go,
    java,
    key_server,
    need,
    node,
    nothing,
    run,
)

__all__ = ["go", "java", "node"]

ADDRESS = "https://app.example.com/akoya/jwks.json"
LINES = {
    language: text
    for language, text in re.findall(r"```(\w+)\n(.*?)```", (ROOT / "README.md").read_text("utf-8"), re.DOTALL)
    if ADDRESS in text
}


def lines(language: str, url: str) -> str:
    assert len(LINES[language].splitlines()) <= 6
    return str(LINES[language].replace(ADDRESS, url))


def test_python_example_verifies_requests() -> None:
    made = signer(signing("ed25519"), "https://a", "http://b").prepare(FULL)
    request = {"method": "GET", "host": "app.example.com", "path": "/a", "query": "x=1"}
    headers = made.headers(b"GET", b"app.example.com", b"/a", b"x=1", time.time())
    called: list[tuple[object, ...]] = []
    with key_server(jwks(signing("ed25519"))) as url:
        names = {**request, "headers": headers, "time": time, "call_akoya": lambda *arguments: called.append(arguments)}
        exec(lines("python", url), names)
    assert FULL.bearer is not None
    [(provider, id_token, interaction_type, last_access)] = called
    assert (provider, id_token, interaction_type) == (FULL.provider, FULL.bearer.reveal(), "user")
    assert last_access == "2026-09-21T14:12:37Z"


def test_node_example_verifies_requests(node: Path) -> None:
    with key_server(jwks(signing("ed25519"))) as url:
        text = lines("js", url).rstrip()
        assert text.endswith("});")
        start = '}).on("error", console.error).listen(0, "127.0.0.1", function () { console.log("listening on", this.address().port); });'
        imports = 'import { createServer } from "node:http";\nimport { fromNode, jwksKeys, verifyRequest } from "./akoya-verify.mjs";\n'
        (node / "readme.mjs").write_text(imports + text.removesuffix("});") + start)
        with app_server(["node", "readme.mjs"], node, {}) as port:
            assert fetch(port, "ed25519", nothing) == (200, FULL.owner)


def test_go_example_verifies_requests(go: Path, tmp_path: Path) -> None:
    with key_server(jwks(signing("ed25519"))) as url:
        text = lines("go", url).replace('http.ListenAndServe(":3000", ', "serve(")
        main = f"""package main

import (
	"fmt"
	"net"
	"net/http"

	akoya "example.com/akoya-gateway-verifier"
)

func serve(app http.Handler) {{
	listener, _ := net.Listen("tcp", "127.0.0.1:0")
	fmt.Printf("listening on %d\\n", listener.Addr().(*net.TCPAddr).Port)
	http.Serve(listener, app)
}}

func main() {{
{text}}}
"""
        overlay = tmp_path / "overlay.json"
        (tmp_path / "main.go").write_text(main)
        overlay.write_text(
            json.dumps({"Replace": {str(VERIFIERS / "go" / "server" / "main.go"): str(tmp_path / "main.go")}})
        )
        binary = str(tmp_path / "readme")
        built = run(need("go"), "build", "-overlay", str(overlay), "-o", binary, "./server", cwd=VERIFIERS / "go")
        assert built.returncode == 0, built.stderr
        with app_server([binary], tmp_path, {}) as port:
            assert fetch(port, "ed25519", nothing) == (200, f"{FULL.owner} {FULL.connector}\n")
            assert fetch(port, "ed25519", change_owner)[0] == 401


def test_java_example_verifies_requests(java: Path, tmp_path: Path) -> None:
    with key_server(jwks(signing("ed25519"))) as url:
        program = f"""import java.util.ArrayList;

public class Readme {{
    public static void main(String[] given) throws Exception {{
        String method = "GET", host = "app.example.com", rawPath = "/a", rawQuery = "x=1";
        var headers = new ArrayList<AkoyaVerifier.Header>();
        for (int i = 0; i < given.length; i += 2) headers.add(new AkoyaVerifier.Header(given[i], given[i + 1]));
{lines("java", url)}
        System.out.println(owner + " " + token);
    }}
}}
"""
        (tmp_path / "Readme.java").write_text(program)
        built = run(need("javac"), "-cp", str(java), "-d", str(tmp_path), "Readme.java", cwd=tmp_path)
        assert built.returncode == 0, built.stderr
        made = signer(signing("ed25519"), "https://a", "http://b").prepare(FULL)
        pairs = made.headers(b"GET", b"app.example.com", b"/a", b"x=1", time.time())
        given = [text.decode() for pair in pairs for text in pair]
        done = run(need("java"), "-cp", f"{java}:{tmp_path}", "Readme", *given, cwd=tmp_path)
        assert FULL.bearer is not None
        assert done.stdout == f"{FULL.owner} {FULL.bearer.reveal()}\n", done.stderr
        forged = run(need("java"), "-cp", f"{java}:{tmp_path}", "Readme", *given[:-1], "akoya=:AAAA:", cwd=tmp_path)
        assert (forged.stdout, "NotVerified" in forged.stderr) == ("", True)


def test_readme_has_lines_for_four_languages() -> None:
    assert set(LINES) == {"python", "js", "go", "java"}
