"""The rooms of prompts: what models are told, in which version, and who changed it."""
