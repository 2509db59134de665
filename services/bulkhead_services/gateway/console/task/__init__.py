"""The room of one task: how it stands, what a person may do to it, and how it differs from another."""
