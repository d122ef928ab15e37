"""From `sessions.store` to a store: the Redis client library is required only if a Redis store is configured."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.config_documents import validated

WITHOUT_REDIS = """
import sys
sys.modules["redis"] = None
from akoya_gateway.errors import OperatorError
from akoya_gateway.store import open_store
open_store("memory://"), open_store("sqlite:x.db")
try:
    open_store("redis://u:hunter2@h")
except OperatorError as fault:
    print(fault.detail)
"""


def test_missing_redis_library_is_reported_and_other_stores_work() -> None:
    done = subprocess.run([sys.executable, "-c", WITHOUT_REDIS], capture_output=True, text=True, check=True)
    assert "pip install 'redis>=6.2'" in done.stdout
    assert "hunter2" not in done.stdout


@pytest.mark.parametrize("way", ["", "s", "+sentinel", "s+sentinel", "+cluster", "s+cluster"])
@pytest.mark.parametrize("server", ["redis", "valkey"])
def test_every_url_that_is_understood_passes_the_configuration(server: str, way: str, tmp_path: Path) -> None:
    result = validated(tmp_path, {"sessions.store": f"{server}{way}://h:1/{'service' if 'sentinel' in way else '0'}"})
    assert not result.diagnostics


def test_password_for_the_sentinels_is_not_written_in_the_file(tmp_path: Path) -> None:
    url = "redis+sentinel://h:1/service?sentinel_password=hunter2"
    assert "a secret must not be written" in str(validated(tmp_path, {"sessions.store": url}).diagnostics[0])
