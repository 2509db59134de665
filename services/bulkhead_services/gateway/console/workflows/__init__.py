"""The room of workflows."""
