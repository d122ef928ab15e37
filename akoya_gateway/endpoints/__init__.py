"""The gateway's own routes: connect, callback, connections, disconnect, logout, JWK Set."""
