"""`bulkhead workflows`: named plans, from a draft to a run."""
