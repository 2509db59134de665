"""The tool door: MCP over streamable HTTP; its calls run under the run that model calls of the same caller have."""
