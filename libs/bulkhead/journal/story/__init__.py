"""The story of a task: what was planned, asked, found, written and refused, and what its answer rests on."""
