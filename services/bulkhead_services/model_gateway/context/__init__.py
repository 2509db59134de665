"""Contents of a prompt: rendered, counted and cut to a model's context."""
