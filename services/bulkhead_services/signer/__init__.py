"""The one identity that mints authority; it faces no internet."""
