"""The mesh as a live graph, on the overview."""
