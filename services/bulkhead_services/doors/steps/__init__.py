"""Steps that programs outside carry out: handed to one at a time, answered once (ADR 0040)."""
