"""Watches over canaries and over what drifts, from what the gateway is told of tasks that ended."""
