"""The ledger in Redis: its scripts, pipeline, codec and store."""
