"""The text of the JSON Schema of gateway.yaml.

It is not in `schema_validation`, which applies the schema, because that module takes long to import.
"""

from __future__ import annotations

from importlib import resources
from pathlib import Path

_FILE = "gateway.schema.json"


def schema_text() -> str:
    """Return the text of the schema, from the installed package or from the `schema/` folder of the checkout."""
    shipped = resources.files("akoya_gateway.config").joinpath(_FILE)
    if shipped.is_file():
        return shipped.read_text(encoding="utf-8")
    return (Path(__file__).parents[2] / "schema" / _FILE).read_text(encoding="utf-8")
