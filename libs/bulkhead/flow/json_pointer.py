"""Segments of JSON pointers (RFC 6901). Pure."""


def escape_segment(name: object) -> str:
    """A name, or a position, as a segment."""
    return str(name).replace("~", "~0").replace("/", "~1")


def unescape_segment(segment: str) -> str:
    """The name that a segment stands for."""
    return segment.replace("~1", "/").replace("~0", "~")
