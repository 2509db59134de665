"""Routes about what the registry keeps: prompts and workflows."""
