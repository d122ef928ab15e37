"""Where a process or an ASGI app is put together from a configuration."""
