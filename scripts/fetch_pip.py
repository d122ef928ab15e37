#!/usr/bin/env python3
"""Installs pip into the virtual environment of the Python that runs this: `.venv/bin/python scripts/fetch_pip.py`.

For a Python without ensurepip, such as that of Debian without its package python3-venv. The wheel comes from the
package index (`PIP_INDEX_URL`, or PyPI), and its hash is compared. A wheel of pip can be run to install itself.
"""

from __future__ import annotations

import hashlib
import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path
from urllib.parse import urljoin
from urllib.request import urlopen

WHEEL = "pip-26.3-py3-none-any.whl"
SHA256 = "f3b60b20ffaadd4415ed7957212a38ac63fa4c5fa375bd0f4a797777940fad13"
TIMEOUT = 60


def main() -> int:
    index = os.environ.get("PIP_INDEX_URL") or "https://pypi.org/simple"
    page = f"{index.rstrip('/')}/pip/"
    try:
        with urlopen(page, timeout=TIMEOUT) as response:  # noqa: S310 - the operator's own index
            base, links = response.url, re.findall(r'href="([^"]+)"', response.read().decode())
        [link] = [each for each in links if each.partition("#")[0].endswith(f"/{WHEEL}")][:1]
        with urlopen(urljoin(base, link.partition("#")[0]), timeout=TIMEOUT) as response:  # noqa: S310
            content = response.read()
    except (OSError, ValueError) as error:
        print(f"{WHEEL} cannot be fetched from {page}: {error}", file=sys.stderr)
        return 1
    if hashlib.sha256(content).hexdigest() != SHA256:
        print(f"{WHEEL} from {page} has another hash than expected", file=sys.stderr)
        return 1
    with tempfile.TemporaryDirectory() as folder:
        wheel = Path(folder) / WHEEL
        wheel.write_bytes(content)
        install = ["install", "--quiet", "--disable-pip-version-check", "--no-index", str(wheel)]
        return subprocess.run([sys.executable, f"{wheel}/pip", *install], check=False).returncode  # noqa: S603


if __name__ == "__main__":
    sys.exit(main())
