"""pytest plugin with the fixture `akoya_flow`. Heavy modules are imported only when it is used."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from functools import partial
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from akoya_gateway.sandbox.signing_keys import Key
    from akoya_gateway.testing.flow import Browser


@pytest.fixture
def akoya_flow(_akoya_sandbox_first_key: Callable[[str], Key]) -> Callable[..., AbstractContextManager[Browser]]:
    """A function that starts an app inside a gateway, with an emulated Akoya: see `akoya_gateway.testing.flow.flow`.

    >>> def test_accounts(akoya_flow):  # doctest: +SKIP
    ...     with akoya_flow(app) as browser:
    ...         browser.connect("mikomo")
    ...         assert browser.get("/accounts").json() == {"bank": "mikomo"}
    """
    from akoya_gateway.sandbox.settings import SandboxSettings  # noqa: PLC0415
    from akoya_gateway.sandbox.signing_keys import SigningKeys  # noqa: PLC0415
    from akoya_gateway.testing.flow import flow  # noqa: PLC0415

    alg = SandboxSettings().alg
    return partial(flow, keys=SigningKeys(alg, _akoya_sandbox_first_key(alg)))
