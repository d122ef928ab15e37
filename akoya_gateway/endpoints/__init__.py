"""Endpoints of the gateway's own routes: connect, callback, connections, disconnect, logout and the JWK Set."""
