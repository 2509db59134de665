"""The room Chat: a conversation, each turn of which is a task."""
