"""Bulkhead: what users import and services stand on."""
