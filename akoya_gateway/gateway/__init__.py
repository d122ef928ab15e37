"""The ASGI middleware `Gateway` and its parts."""
