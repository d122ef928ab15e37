import os


def test_process_exits() -> None:
    os._exit(1)
