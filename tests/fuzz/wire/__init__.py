"""The same hostile bytes to every entry point, and what must hold for all of them: `python -m tests.fuzz.wire.run`."""
