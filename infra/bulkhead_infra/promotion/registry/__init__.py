"""The registry: what speaks to it, how it lets somebody in, and one on this machine."""
