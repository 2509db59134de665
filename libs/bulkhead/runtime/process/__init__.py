"""A service as a process: start, signals, health endpoints, container probe."""
