"""Where the middleware is mounted in the app around it: the only `root_path` that its requests may have.

An app serves what is left of the path behind `root_path`. Some servers take that from a client's header (daphne:
`Daphne-Root-Path`), so a value that the operator did not name is refused.
"""

from __future__ import annotations

from akoya_gateway.errors import UserError
from akoya_gateway.log import logger

log = logger("akoya_gateway.gateway")

LOGGED = 10
"""Other values that are logged, once each, so that a mount that was forgotten in the configuration is found."""


class OtherRootPath(UserError):
    code = "root-path"
    title = "The address is not valid"


class Mount:
    """`root_path` of the configuration, empty at the root."""

    def __init__(self, root_path: str) -> None:
        self._root_path = root_path
        self._below = root_path + "/"
        self._logged: set[str] = set()

    def require(self, named: str, path: str) -> None:
        """Raise `OtherRootPath` unless the server names this mount and the path is below it."""
        if named != self._root_path:
            if named not in self._logged and len(self._logged) < LOGGED:
                self._logged.add(named)
                log.warning("root_path mismatch detected", root_path=named[:100], configured=self._root_path)
            raise OtherRootPath("The app's server says that the app is mounted elsewhere than `root_path` does.")
        if not path.startswith(self._below):
            raise OtherRootPath("The path does not begin with `root_path`.")
