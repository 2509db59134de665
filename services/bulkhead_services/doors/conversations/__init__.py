"""Conversations of outside agents: stored by content, gone on with by a response's id, answered piece by piece."""
