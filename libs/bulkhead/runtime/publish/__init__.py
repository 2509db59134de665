"""Publishing: messages with ids that derive from their cause."""
