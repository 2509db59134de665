"""The reference of a content: pure, so that a decider can name what its shell will store.

Many references can be one: a list is a content too, whose media type is `REFERENCES`.
"""

import hashlib
import json
from collections.abc import Sequence

from bulkhead.flow import bounded
from bulkhead_contracts import bounds
from bulkhead_contracts.result import REFERENCES, ContentRef

LISTED = "application/json"
"""Media type of what a list names."""


def summarise(text: str) -> str:
    """One line for people: the first characters, blanks joined."""
    line = " ".join(text[: bounds.MAX_SUMMARY_CHARS * 4].split())
    return line if len(line) <= bounds.MAX_SUMMARY_CHARS else line[: bounds.MAX_SUMMARY_CHARS - 1] + "…"


def reference(author: str, data: bytes, media_type: str = "text/plain", summary: str | None = None) -> ContentRef:
    """The reference that `data` has under this author."""
    text = summarise(data.decode("utf-8", "replace")) if summary is None else summary
    digest = hashlib.sha256(data).hexdigest()
    return ContentRef(author=author, sha256=digest, size_bytes=len(data), media_type=media_type, summary=text)


def list_of(refs: Sequence[ContentRef]) -> bytes:
    """A list of references, which are of one author and of JSON without summaries."""
    assert 0 < len(refs) <= bounds.LISTED_REFERENCES and {ref.media_type for ref in refs} == {LISTED}
    return json.dumps([[ref.sha256, ref.size_bytes] for ref in refs], separators=(",", ":")).encode()


def in_list(ref: ContentRef, data: bytes) -> tuple[ContentRef, ...]:
    """The references in a list, in order; ref: the list's own. Raises ValueError."""
    rows = bounded.load_json(data.decode()) if len(data) <= bounds.MAX_LIST_BYTES else None
    if ref.media_type != REFERENCES or not isinstance(rows, list) or len(rows) > bounds.LISTED_REFERENCES:
        raise ValueError(f"content {ref.sha256[:12]} is no list of references")
    try:
        return tuple(
            ContentRef(author=ref.author, sha256=sha256, size_bytes=size, media_type=LISTED) for sha256, size in rows
        )
    except TypeError as error:
        raise ValueError(f"content {ref.sha256[:12]} is no list of references") from error
