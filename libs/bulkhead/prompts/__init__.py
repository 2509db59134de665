"""Prompts: files that are shipped, and the versions and releases by which a tenant's people replace them."""
