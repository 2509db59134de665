"""The demo's documents and case, generated from a seed. Only this package knows the right answer."""
