"""WebSocket proxying to the upstream (RFC 6455)."""
