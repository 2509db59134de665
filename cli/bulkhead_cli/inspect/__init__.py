"""Commands that explain: timeline, why, analyze."""
