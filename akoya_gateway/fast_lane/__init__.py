"""The fast path below ASGI, for simple requests read from bytes or from an ASGI scope."""
