"""The planner: a decider. `decide(state, message)`, no I/O, no clock, no randomness."""
