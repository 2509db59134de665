"""Keeps the versions of prompts, and what each label stands for."""
