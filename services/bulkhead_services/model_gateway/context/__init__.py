"""What a prompt holds: rendered, counted and cut to a model's context."""
