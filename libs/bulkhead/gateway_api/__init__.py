"""Reads of the gateway's HTTP API: a row of each, its parameters and its reply."""
