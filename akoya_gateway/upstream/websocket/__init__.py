"""WebSockets to the upstream."""
