"""The demo: a whole mesh, run once on a generated case, and its answer checked."""
