"""The bus in memory: a broker, its streams and consumers in one process, for tests and simulation."""
