"""The forms of other vendors' APIs, read and written. Pure."""
