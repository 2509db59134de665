"""The watcher: the journal's fold into findings, halts and breakers."""
