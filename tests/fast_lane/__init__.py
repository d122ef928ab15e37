"""The lane below ASGI and the ASGI path, held side by side."""
