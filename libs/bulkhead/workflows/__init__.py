"""Workflows: plans with parameters. Composed, checked, compared, read from files and made of tasks. Pure."""
