"""The upstream hop: a small streaming HTTP/1.1 client and a reverse proxy built on it.

It handles HTTP and WebSockets only, and does not know sessions, grants or the provider.
"""
