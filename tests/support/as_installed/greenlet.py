"""Hides the package from the gateways that tests start: it is not installed with a gateway, and takes time to import."""

raise ImportError("only the tests have it")
