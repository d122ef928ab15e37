"""Reads the names of client headers that reach the app although the gateway drops such names."""

from __future__ import annotations

from akoya_gateway.client_headers import PASS, UNDERSCORE, ClientHeaders, fold, is_known, is_ours_to_app, setting_for
from akoya_gateway.config.reader import Node


def read_allowed_headers(top: Node, key: str) -> tuple[str, ...]:
    """Read the names of `allow_underscore_headers` or `allow_client_headers` in lower case.

    A name is rejected if servers are known to take a path, method, user, address or host from it.
    """
    node = top.get(key)
    found = []
    for item in node.items() if node else ():
        name: str = item.value.lower()
        setting = setting_for(name.encode())
        if setting == key:
            found.append(name)
        elif setting is not None:
            item.error(f"{item.value} belongs in {setting}", "move it there")
        elif key == UNDERSCORE and "_" not in name:
            item.error("only names with `_` are dropped", "remove it: this header reaches the app anyway")
        elif fold(name.encode()) != name.encode() and is_known(name.encode()):
            item.error(
                f"a server can take {item.value} for a header that the gateway decides about", "have the client use `-`"
            )
        elif ClientHeaders().handling(name.encode()) is PASS and not is_ours_to_app(name.encode()):
            item.error("the gateway does not drop this header for its name", "remove it")
        else:
            item.error(
                f"servers take a path, method, user, address or host from {item.value}",
                "use another name, in the client and in the app",
            )
    return tuple(found)
