"""The ASGI middleware `Gateway` and what it needs."""
