"""MCP servers: their pinned tools run as tools of this mesh."""
