"""Commands that measure the gateway beside its peers: `python -m benchmarks.compare --help`."""
