import time

import pytest


@pytest.mark.parametrize("turn", range(1200))
def test_takes_a_while(turn: int) -> None:
    time.sleep(0.2)
