"""Remote A2A agents: each pinned one is a tool of this mesh."""
