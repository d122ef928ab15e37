"""Write `crds.json`, the schemas of custom resources that the manifests use: `python -m tests.deploy.crds`.

They come from the Go modules that publish them, through the module proxy. Descriptions and rules in CEL are left out.
"""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

FILE = Path(__file__).with_name("crds.json")
MODULES = {
    "github.com/envoyproxy/gateway@v1.7.0": "charts/gateway-helm/crds/generated/*.yaml",
    "sigs.k8s.io/gateway-api@v1.4.0": "config/crd/standard/*.yaml",
    "istio.io/api@v1.27.3": "kubernetes/customresourcedefinitions.gen.yaml",
}
KINDS = {"AuthorizationPolicy", "ClientTrafficPolicy", "Gateway", "HTTPRoute", "HTTPRouteFilter", "SecurityPolicy"}
GROUPS = {"gateway.envoyproxy.io", "gateway.networking.k8s.io", "security.istio.io"}
PARTS = {"SecurityPolicy": ("extAuth", "targetRef", "targetRefs", "targetSelectors")}
"""Kinds of which only these properties are kept, because their schemas are long."""


def pruned(schema: Any) -> Any:
    """Return the schema without texts, and with unknown properties refused, as the API server prunes them."""
    if isinstance(schema, list):
        return [pruned(each) for each in schema]
    if not isinstance(schema, dict):
        return schema
    found = {
        key: {name: pruned(each) for name, each in value.items()} if key == "properties" else pruned(value)
        for key, value in schema.items()
        if key == "properties" or (key != "description" and not key.startswith("x-kubernetes-"))
    }
    if found.get("type") == "object" and "properties" in found and "x-kubernetes-preserve-unknown-fields" not in schema:
        found.setdefault("additionalProperties", False)
    return found


def definitions() -> Iterator[dict[str, Any]]:
    for module, files in MODULES.items():
        command = ["go", "mod", "download", "-json", module]
        done = subprocess.run(command, capture_output=True, text=True, check=True, cwd="/")
        for path in sorted(Path(json.loads(done.stdout)["Dir"]).glob(files)):
            yield from (one for one in yaml.safe_load_all(path.read_text()) if one)


def main() -> None:
    found = {}
    for one in definitions():
        group, kind = one["spec"]["group"], one["spec"]["names"]["kind"]
        if kind not in KINDS or group not in GROUPS:
            continue
        for version in one["spec"]["versions"][:1]:
            spec = pruned(version["schema"]["openAPIV3Schema"]["properties"]["spec"])
            if kind in PARTS:
                spec["properties"] = {name: spec["properties"][name] for name in PARTS[kind]}
            found[f"{group}/{version['name']} {kind}"] = spec
    FILE.write_text(json.dumps(found, separators=(",", ":"), sort_keys=True) + "\n")


if __name__ == "__main__":
    main()
