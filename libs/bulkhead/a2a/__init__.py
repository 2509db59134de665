"""A2A as several services need it."""
