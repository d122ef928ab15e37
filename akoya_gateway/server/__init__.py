"""The uvicorn server, its protocols, listeners and processes."""
