"""The command line on a mesh in containers."""
