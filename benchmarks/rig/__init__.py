"""What the commands are made of: systems, workloads, load, numbers."""
