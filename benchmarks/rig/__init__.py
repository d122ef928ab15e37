"""Building blocks of the benchmark commands: systems, workloads, load generators, statistics."""
