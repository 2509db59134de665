"""The console from a command line: links that open it."""
