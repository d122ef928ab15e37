"""Sends the same hostile bytes to every entry point and checks invariants: `python -m tests.fuzz.wire.run`."""
