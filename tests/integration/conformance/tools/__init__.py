"""Tools that the public conformance tests of MCP ask a server for. In: no arguments. Out: a text, or a failure."""
