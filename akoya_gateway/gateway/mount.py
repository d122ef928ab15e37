"""Checks the `root_path` of requests: only the configured mount point is accepted.

An app serves the part of the path after `root_path`. Some servers take `root_path` from a client header (daphne:
`Daphne-Root-Path`), so a value that the operator did not configure is rejected.
"""

from __future__ import annotations

from akoya_gateway.errors import UserError
from akoya_gateway.log import LoggedValues, logger

log = logger("akoya_gateway.gateway")

MAX_LOGGED_NAMES = 10
"""Maximum number of unexpected values to log, once each.

The log reveals a mount that is missing in the configuration.
"""


class OtherRootPath(UserError):
    """The request's `root_path` or path does not match the configured `root_path`."""

    code = "root-path"
    title = "The address is not valid"


class Mount:
    """The configured `root_path`; empty for an app at the root."""

    def __init__(self, root_path: str) -> None:
        self._root_path = root_path
        self._below = root_path + "/"
        self._logged = LoggedValues(MAX_LOGGED_NAMES)

    def require(self, named: str, path: str) -> None:
        """Raise `OtherRootPath` unless `named` is the configured `root_path` and the path is below it."""
        if named != self._root_path:
            if self._logged.add(named):
                log.warning("root_path mismatch detected", root_path=named[:100], configured=self._root_path)
            raise OtherRootPath("The server's `root_path` differs from the configured `root_path`.")
        if not path.startswith(self._below):
            raise OtherRootPath("The path does not begin with `root_path`.")
