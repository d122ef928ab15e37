"""The manifests of deploy/kubernetes beside sidecar.yaml: their schema, and what their commands do."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import jsonschema
import kubernetes_validate
import yaml

from tests.support.commands import run_command

FOLDER = Path(__file__).parents[2] / "deploy" / "kubernetes"
KUBERNETES = "1.31"
CUSTOM: dict[str, Any] = json.loads(Path(__file__).with_name("crds.json").read_text())
"""Schemas of custom resources: see `tests.deploy.crds`."""
SECRETS = "/run/secrets/akoya-gateway"

Document = dict[str, Any]


def every_document(name: str) -> list[Document]:
    return [one for one in yaml.safe_load_all((FOLDER / name).read_text()) if one]


def documents(name: str) -> dict[str, Document]:
    return {one["kind"]: one for one in every_document(name)}


def test_manifests_fit_the_schemas_of_kubernetes_and_of_custom_resources() -> None:
    checked, custom = 0, set()
    for path in sorted(FOLDER.glob("*.yaml")):
        for document in every_document(path.name):
            schema = CUSTOM.get(f"{document['apiVersion']} {document['kind']}")
            if schema is None:
                kubernetes_validate.validate(document, KUBERNETES, strict=True)
            else:
                jsonschema.validate(document["spec"], schema)
                custom.add(document["kind"])
            checked += 1
    assert checked >= 20
    assert custom == {name.split()[1] for name in CUSTOM}


def test_native_sidecar_is_the_container_of_the_sidecar_and_ends_after_the_app() -> None:
    spec = documents("native-sidecar.yaml")["Deployment"]["spec"]["template"]["spec"]
    [native], [app] = spec["initContainers"], spec["containers"]
    usual = documents("sidecar.yaml")["Deployment"]["spec"]["template"]["spec"]
    assert native.pop("restartPolicy") == "Always"
    assert app.pop("lifecycle") == {"preStop": {"sleep": {"seconds": 10}}}
    plain = {one["name"]: one for one in usual["containers"]}
    # The app gets SIGTERM first, so it has the delay.
    assert plain["akoya-gateway"]["args"] == [*native["args"][:-2], "--drain-delay", "5", *native["args"][-2:]]
    for one in (native, plain["akoya-gateway"]):
        del one["args"]
    assert native == plain["akoya-gateway"]
    assert app == plain["app"]
    assert spec["terminationGracePeriodSeconds"] >= 10 + 30 + 45
    assert spec["volumes"] == usual["volumes"]


def test_ingress_leads_to_the_service_of_the_sidecar() -> None:
    ingress, service = documents("ingress.yaml")["Ingress"], documents("sidecar.yaml")["Service"]
    [path] = ingress["spec"]["rules"][0]["http"]["paths"]
    backend = path["backend"]["service"]
    assert backend["name"] == service["metadata"]["name"]
    assert backend["port"]["name"] in {port["name"] for port in service["spec"]["ports"]}
    config = yaml.safe_load(documents("sidecar.yaml")["ConfigMap"]["data"]["gateway.yaml"])
    assert config["public_url"] == f"https://{ingress['spec']['tls'][0]['hosts'][0]}"
    assert config["trusted_proxies"]


def test_rotation_job_adds_a_key_to_a_copy_of_the_secret_and_patches_it(tmp_path: Path) -> None:
    """Its commands run here, one after the other, with the folders of the containers below `tmp_path`."""
    pod = documents("rotate-signing-keys.yaml")["CronJob"]["spec"]["jobTemplate"]["spec"]["template"]["spec"]
    secret, copy, config = tmp_path / "secret", tmp_path / "copy", tmp_path / "config"
    data = secret / "..2026_11_30"
    for folder in (copy, config, data):
        folder.mkdir(parents=True)
    # As the kubelet mounts a Secret: symbolic links to a directory that it replaces as a whole.
    (secret / "..data").symlink_to(data.name)
    for name in ("signing-keys.json", "store-key"):
        (secret / name).symlink_to(f"..data/{name}")
    run_command("keys", "new", "--set", "--out", str(data / "signing-keys.json"))
    (data / "store-key").write_text(run_command("keys", "new", "--store").stdout)
    before = json.loads((secret / "signing-keys.json").read_text())
    before["keys"][0]["iat"] -= 31 * 86_400
    (data / "signing-keys.json").write_text(json.dumps(before))
    for name in ("signing-keys.json", "store-key"):
        (data / name).chmod(0o440)
    document = documents("sidecar.yaml")["ConfigMap"]["data"]["gateway.yaml"].replace(SECRETS, str(copy))
    content = yaml.safe_load(document)
    content["signing"]["keys"] = [{"file": f"{copy}/signing-keys.json"}]
    (config / "gateway.yaml").write_text(yaml.safe_dump(content))
    for container in pod["initContainers"]:
        command = container.get("command") or ["akoya-gateway", *container["args"]]
        command = [_inside(word, secret, copy, config) for word in command]
        if command[0] == "akoya-gateway":
            done = run_command(*command[1:])
        else:
            assert command[0] == "python"
            done = subprocess.run([sys.executable, *command[1:]], capture_output=True, text=True, check=False,
                                  env={"PATH": os.environ["PATH"]}, timeout=60)  # fmt: skip
        assert done.returncode == 0, (container["name"], done.stderr)
    [apply] = pod["containers"]
    patch_file = next(word for word in apply["args"] if word.startswith("--patch-file")).partition("=")[2]
    patch = json.loads(Path(_inside(patch_file, secret, copy, config)).read_text())
    after = json.loads(patch["stringData"]["signing-keys.json"])
    assert len(after["keys"]) == 2
    assert before["keys"][0]["kid"] in {key["kid"] for key in after["keys"]}
    assert json.loads((secret / "signing-keys.json").read_text()) == before, "a mounted Secret cannot be written"


def _inside(word: str, secret: Path, copy: Path, config: Path) -> str:
    word = word.replace(SECRETS, str(copy)).replace("/etc/akoya-gateway", str(config))
    return re.sub(r"(?<=')/secret(?=')", str(secret), word)


def test_only_kubectl_of_the_rotation_job_gets_a_token_and_it_may_change_one_secret() -> None:
    found = documents("rotate-signing-keys.yaml")
    pod = found["CronJob"]["spec"]["jobTemplate"]["spec"]["template"]["spec"]
    assert pod["automountServiceAccountToken"] is False
    mounts = {
        one["name"]: {m["name"] for m in one["volumeMounts"]} for one in pod["initContainers"] + pod["containers"]
    }
    assert [name for name, volumes in mounts.items() if "token" in volumes] == ["apply"]
    [rule] = found["Role"]["rules"]
    assert (rule["resources"], rule["resourceNames"]) == (["secrets"], ["akoya-gateway"])
    assert set(rule["verbs"]) == {"get", "patch"}
    names = {"ServiceAccount": found["ServiceAccount"]["metadata"]["name"], "Pod": pod["serviceAccountName"],
             "RoleBinding": found["RoleBinding"]["subjects"][0]["name"]}  # fmt: skip
    assert set(names.values()) == {"akoya-gateway-rotate"}
