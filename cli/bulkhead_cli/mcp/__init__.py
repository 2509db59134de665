"""Commands about MCP servers: which tools are pinned, and pinning them."""
