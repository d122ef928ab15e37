"""Access decisions: whether a request is admitted, and which headers the upstream gets."""
