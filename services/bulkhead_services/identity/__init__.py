"""Lets services into the broker by the tokens that Kubernetes gives them."""
