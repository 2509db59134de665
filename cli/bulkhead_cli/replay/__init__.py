"""Commands on recorded runs: replay, fork, export."""
