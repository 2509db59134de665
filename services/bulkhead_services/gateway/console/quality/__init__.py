"""The rooms of quality and of labels."""
