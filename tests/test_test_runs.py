"""The test command: how a run ends."""

from __future__ import annotations

import importlib
import sys

import pytest


def test_traced_process_importing_playwrights_greenlet_api_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "gettrace", lambda: print)
    with pytest.raises(ImportError, match="greenlets"):
        importlib.import_module("playwright.sync_api")
