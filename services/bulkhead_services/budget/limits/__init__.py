"""Limits: tenants' limits, pauses at a ceiling, alerts, and the texts people read."""
