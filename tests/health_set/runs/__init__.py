"""Generators of runs: honest ones, looping ones, stalls, and the words in them."""
