"""The entry points: each builds a process or an ASGI app from a configuration."""
