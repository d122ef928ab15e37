import itertools

import pytest


@pytest.mark.timeout(1)
def test_process_spins_in_c() -> None:
    """Never returns to the interpreter and keeps its lock: no signal handler and no other thread runs."""
    all(itertools.repeat(True))
