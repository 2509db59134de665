"""The reference of a content: pure, so that a decider can name what its shell will store."""

import hashlib

from bulkhead_contracts import bounds
from bulkhead_contracts.result import ContentRef


def summarise(text: str) -> str:
    """One line for people: the first characters, blanks joined."""
    line = " ".join(text[: bounds.MAX_SUMMARY_CHARS * 4].split())
    return line if len(line) <= bounds.MAX_SUMMARY_CHARS else line[: bounds.MAX_SUMMARY_CHARS - 1] + "…"


def reference(author: str, data: bytes, media_type: str = "text/plain", summary: str | None = None) -> ContentRef:
    """The reference that `data` has under this author."""
    text = summarise(data.decode("utf-8", "replace")) if summary is None else summary
    digest = hashlib.sha256(data).hexdigest()
    return ContentRef(author=author, sha256=digest, size_bytes=len(data), media_type=media_type, summary=text)
