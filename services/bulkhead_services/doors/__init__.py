"""The edge for agents of others: they call it as they call a provider of models, and each of their runs is a task."""
