"""Commands that measure the gateway and compare it with other proxies: `python -m benchmarks.compare --help`."""
