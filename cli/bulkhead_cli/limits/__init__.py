"""Commands on limits and spending."""
