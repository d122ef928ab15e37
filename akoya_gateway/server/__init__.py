"""The HTTP server: uvicorn and its protocols, listening sockets, worker processes and the supervisor."""
