"""The hop to the app: a small streaming HTTP/1.1 client and the reverse proxy on it. Knows HTTP only."""
