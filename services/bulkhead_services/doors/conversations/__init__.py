"""Conversations of outside agents: stored by content, and gone on with by the id of a response."""
