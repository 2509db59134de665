"""Text of calls and results, normalised for comparison."""
