"""The doer's runtime: one request in, one reply out, done at most once."""
