"""HTML pages for users. Templates are loaded at startup, and all values are escaped.

Pages contain no scripts and no external assets. Their only style sheet is inline and allowed by its hash, so that the
Content-Security-Policy can forbid everything else.
"""

from __future__ import annotations

import base64
import hashlib
from importlib import resources

from jinja2 import DictLoader, Environment, StrictUndefined

from akoya_gateway.responses.response import Response


def _templates() -> dict[str, str]:
    folder = resources.files("akoya_gateway.responses") / "templates"
    return {entry.name: entry.read_text("utf-8") for entry in folder.iterdir() if entry.is_file()}


class Pages:
    """Renders the pages of a gateway."""

    def __init__(self, prefix: str) -> None:
        """Load the templates. `prefix` is the path prefix of the gateway's routes."""
        templates = _templates()
        style = templates["style.css"]
        self._templates = Environment(
            loader=DictLoader(templates),
            autoescape=True,
            undefined=StrictUndefined,
            trim_blocks=True,
            lstrip_blocks=True,
        )
        self._templates.globals.update(prefix=prefix, style=style)
        digest = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
        policy = (
            f"default-src 'none'; style-src 'sha256-{digest}'; form-action 'self'; base-uri 'none'; "
            "frame-ancestors 'none'"
        )
        self._headers: tuple[tuple[bytes, bytes], ...] = (
            (b"content-type", b"text/html; charset=utf-8"),
            (b"content-security-policy", policy.encode()),
            (b"x-frame-options", b"DENY"),
            (b"cross-origin-opener-policy", b"same-origin"),
            (b"permissions-policy", b"camera=(), geolocation=(), microphone=()"),
        )

    def render(self, name: str, status: int = 200, **values: object) -> Response:
        """Return the page from the template `name` (without `.html`). `values` are escaped."""
        html = self._templates.get_template(f"{name}.html").render(**values)
        return Response(status, self._headers, html.encode())
