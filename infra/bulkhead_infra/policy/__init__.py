"""Policies of tools: `default.cedar` for every tenant, `<tenant>.cedar` beside it (docs/how-to/policy.md)."""
