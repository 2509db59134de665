"""Bulkhead's wire contracts: the only thing that services share. Imports nothing else of ours.

`catalog` lists every message, `envelope` its headers, `subjects` where it travels, `bounds` what it may measure.
"""
