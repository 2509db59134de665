"""The HTTP side of the doors: routes, callers, answers."""
