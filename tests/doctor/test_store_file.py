"""What doctor reports about the file of an SQLite store, without creating it."""

from __future__ import annotations

import errno
import os
from pathlib import Path
from typing import Any

import pytest

from akoya_gateway.doctor.check_result import Severity
from akoya_gateway.doctor.store_checks import check_store
from tests.support.config_documents import validated


@pytest.mark.parametrize(
    ("place", "verdict", "says"),
    [
        ("grants.db", Severity.FINE, "will be created at the first start"),
        ("new/folder/grants.db", Severity.FINE, "will be created at the first start"),
        ("link.db", Severity.FAULT, "is a symbolic link to a file that does not exist"),
        ("loop.db", Severity.FAULT, "is a symbolic link to a file that does not exist"),
        ("folder.db", Severity.FAULT, "cannot be opened"),
    ],
)
async def test_doctor_agrees_with_the_start_about_the_file(
    tmp_path: Path, place: str, verdict: Severity, says: str
) -> None:
    (tmp_path / "link.db").symlink_to(tmp_path / "nowhere.db")
    (tmp_path / "loop.db").symlink_to(tmp_path / "loop.db")
    (tmp_path / "folder.db").mkdir()
    config = validated(tmp_path, {"sessions.store": f"sqlite:{tmp_path / place}"}).config
    assert config is not None
    (result,) = await check_store(config)
    assert result.verdict is verdict
    assert says in result.says


async def test_file_that_this_user_may_not_look_for_is_a_fault(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Root may look everywhere, so the error of the system is simulated."""
    stat = os.stat

    def denied(path: Any, *args: Any, **kwargs: Any) -> os.stat_result:
        if str(path).startswith(str(tmp_path / "closed") + "/"):
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(path))
        return stat(path, *args, **kwargs)

    config = validated(tmp_path, {"sessions.store": f"sqlite:{tmp_path}/closed/new/grants.db"}).config
    assert config is not None
    (tmp_path / "closed").mkdir()
    monkeypatch.setattr(os, "stat", denied)
    monkeypatch.setattr(os, "access", lambda path, mode: False)
    (result,) = await check_store(config)
    monkeypatch.undo()
    assert result.verdict is Severity.FAULT
    assert f"cannot be found, and {tmp_path / 'closed'} is not writable" in result.says
