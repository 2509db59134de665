"""Admission of tasks: run slots, queue, rate limits, quotas, backpressure."""
