"""Which model, at which deployment, is asked: policy, chain, hedge, load, health and rate limits."""
