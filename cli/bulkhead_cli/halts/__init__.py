"""Commands on halts and breakers."""
