"""A service that gives back what it is told."""
