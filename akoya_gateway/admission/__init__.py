"""Whether a request may pass, and with which headers."""
