"""The fast path below ASGI: plain requests, read from bytes or from an ASGI scope."""
