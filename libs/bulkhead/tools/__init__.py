"""Tools and packs of tools: the API that a tool is written against, the catalog of declared tools, and packs."""
