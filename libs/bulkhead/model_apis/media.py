"""Images and documents that stand in a request of any API: found in their places, counted, or named as gaps. Pure.

Enters: a body, and the sizes of its PDFs. Leaves: what each may cost; the body without them; or with words in the
place of what nobody can count before it is paid for. Only what stands in a part's place is one: in a text,
or in a tool's arguments, the same words are text.
"""

import base64
import hashlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from bulkhead.model_apis.gaps import Gap
from bulkhead.quotas.image_tokens import MAX_SIDE_PX, PixelSize, most_image_tokens, size_of_data_url
from bulkhead.quotas.token_estimates import IMAGE_TOKENS, TokenCounter

PDF_HEAD = b"%PDF-"
MOST_PAGE_TEXT_TOKENS = 3_000
"""Text of one page by the vendors' rule, where what our reader finds is less."""
_PAGE = PixelSize(MAX_SIDE_PX, MAX_SIDE_PX)
"""A page is shown as an image, of a size that its vendor chooses."""
NOT_AN_IMAGE = "it is not the Base64 of a PNG, JPEG, GIF or WebP in the request itself, so its size is not known"
ELSEWHERE = "it lies elsewhere, so its size is not known"
NOT_READ = "it is neither text nor a PDF, so its tokens have no bound"


@dataclass(frozen=True, slots=True)
class PdfSize:
    """Size of a PDF. text: of all its pages; problem: why it cannot be counted."""

    pages: int = 0
    text: str = ""
    problem: str = ""


_MARKS = tuple(
    f'"{name}"'.encode()
    for name in ("image", "image_url", "input_image", "file", "input_file", "document", "inlineData")
)
"""A body that has none of them has no image and no document."""
PdfSizes = Mapping[str, PdfSize]
"""By the sha256 of the file."""


@dataclass(frozen=True, slots=True)
class Medium:
    """An image or a document. data: Base64, or a data URL; None where it lies elsewhere."""

    kind: Literal["image", "document"]
    data: str | None
    media_type: str = ""

    @property
    def image_size(self) -> PixelSize | None:
        """Its size in pixels; None where it cannot be told."""
        url = self.data or ""
        return size_of_data_url(url if url.startswith("data:") else f"data:{self.media_type};base64,{url}")

    def content(self) -> bytes | None:
        """The bytes of a document; None where it is no Base64."""
        try:
            return base64.b64decode((self.data or "").rpartition(",")[2], validate=True)
        except ValueError:
            return None

    def pdf(self) -> bytes | None:
        """The bytes of a PDF; None of anything else."""
        content = self.content() if self.kind == "document" else None
        return content if content is not None and PDF_HEAD in content[:1_024] else None

    def objection(self, pdfs: PdfSizes) -> str:
        """The reason why its tokens have no bound; "" where they have one."""
        if self.data is None:
            return ELSEWHERE if self.kind == "document" else NOT_AN_IMAGE
        if self.kind == "image":
            return "" if self.image_size is not None else NOT_AN_IMAGE
        if (pdf := self.pdf()) is not None:
            size = pdfs.get(sha256_of(pdf))
            return size.problem if size is not None else "it was not read"
        content = self.content()
        try:
            is_text = content is not None and "\0" not in content.decode()
        except UnicodeDecodeError:
            is_text = False
        return "" if is_text else NOT_READ


def sha256_of(content: bytes) -> str:
    """By which a PDF's size is kept."""
    return hashlib.sha256(content).hexdigest()


def medium_of(part: Mapping[str, Any]) -> Medium | None:
    """The image or document that a part is, in the words of any API; None of a text, and of a text document."""
    match part.get("type"):
        case "image_url":
            image = part.get("image_url")
            return Medium("image", _data_url(image.get("url") if isinstance(image, dict) else None))
        case "input_image" | "input_file" if part.get("file_id") or part.get("file_url"):
            return Medium("image" if part["type"] == "input_image" else "document", None)
        case "input_image":
            return Medium("image", _data_url(part.get("image_url")))
        case "file":
            file = part.get("file")
            fields = file if isinstance(file, dict) else {}
            return Medium("document", None if fields.get("file_id") else _text_or_none(fields.get("file_data")))
        case "input_file":
            return Medium("document", _text_or_none(part.get("file_data")))
        case "image" | "document":
            source = part.get("source")
            fields = source if isinstance(source, dict) else {}
            is_image = part["type"] == "image"
            if not is_image and fields.get("type") in ("text", "content"):
                return None
            data = fields.get("data") if fields.get("type") == "base64" else None
            return Medium("image" if is_image else "document", _text_or_none(data), str(fields.get("media_type")))
        case None if isinstance(part.get("inlineData"), dict):
            media_type = str(part["inlineData"].get("mimeType"))
            is_image = media_type.startswith("image/")
            return Medium(
                "image" if is_image else "document", _text_or_none(part["inlineData"].get("data")), media_type
            )
    return None


def part_lists(payload: Mapping[str, Any]) -> Iterator[list[Any]]:
    """Lists of parts of a body: of messages, of items, and of what stands within them."""
    rows = (*_rows(payload, "messages"), *_rows(payload, "input"), *_rows(payload, "contents"))
    for row in rows:
        for name in ("content", "output", "parts"):
            if isinstance(row, dict) and isinstance(row.get(name), list):
                yield from _nested_lists(row[name])


def _nested_lists(parts: list[Any]) -> Iterator[list[Any]]:
    yield parts
    for part in parts:
        if not isinstance(part, dict):
            continue
        inner = part.get("content") if part.get("type") in ("tool_result", "search_result") else None
        if part.get("type") == "document" and isinstance(part.get("source"), dict):
            inner = part["source"].get("content")
        if isinstance(inner, list):
            yield from _nested_lists(inner)


def media_in(payload: Mapping[str, Any]) -> Iterator[Medium]:
    """The images and documents of a body."""
    for parts in part_lists(payload):
        for part in parts:
            if isinstance(part, dict) and (medium := medium_of(part)) is not None:
                yield medium


def replace_uncounted(payload: dict[str, Any], pdfs: PdfSizes, text_type: str) -> list[Gap]:
    """Put words in the place of what has no bound. payload: changed in place. text_type: of a part of text."""
    gaps = []
    for parts in part_lists(payload):
        for place, part in enumerate(parts):
            medium = medium_of(part) if isinstance(part, dict) else None
            if medium is not None and (objection := medium.objection(pdfs)):
                gaps.append(Gap(medium.kind, objection))
                parts[place] = {"type": text_type, "text": gaps[-1].text}
    return gaps


def drop_largest(row: Mapping[str, Any], most_bytes: int, text_type: str) -> tuple[Mapping[str, Any], list[Gap]]:
    """A message without as many of its images and documents, the largest first, as are too much for its bound."""
    gaps, size = list[Gap](), len(_to_json(row))
    if size <= most_bytes:
        return row, gaps
    row = json.loads(_to_json(row))
    places = [
        (len(medium.data), parts, place, medium.kind)
        for parts in part_lists({"messages": [row]})
        for place, part in enumerate(parts)
        if isinstance(part, dict) and (medium := medium_of(part)) is not None and medium.data is not None
    ]
    for chars, parts, place, kind in sorted(places, key=lambda entry: -entry[0]):
        if size <= most_bytes:
            break
        gaps.append(Gap(kind, f"its message is larger than {most_bytes} bytes"))
        parts[place] = {"type": text_type, "text": gaps[-1].text}
        size -= chars
    return row, gaps


def without_media(body: bytes) -> tuple[bytes, list[Medium]]:
    """A body without its images and PDFs, and those: they do not count by their bytes."""
    if not any(mark in body for mark in _MARKS):
        return body, []
    payload, media = json.loads(body), list[Medium]()
    for parts in part_lists(payload):
        for place, part in enumerate(parts):
            medium = medium_of(part) if isinstance(part, dict) else None
            if medium is not None and (medium.image_size if medium.kind == "image" else medium.pdf()) is not None:
                media.append(medium)
                parts[place] = {}
    if not media:
        return body, media
    return _to_json(payload), media


def estimate_body(counter: TokenCounter, body: bytes, pdfs: PdfSizes) -> int:
    """Tokens of a body in the form of any API, estimated."""
    text, media = without_media(body)
    return counter.estimate(text) + _estimate_media(media, pdfs, counter)


def _estimate_media(media: list[Medium], pdfs: PdfSizes, counter: TokenCounter) -> int:
    """Tokens for which a context must have room."""
    return sum(
        IMAGE_TOKENS
        if medium.kind == "image"
        else _pdf_tokens(medium, pdfs, IMAGE_TOKENS, counter.estimate(_pdf_text(medium, pdfs)), 0)
        for medium in media
    )


def tokens_to_reserve(media: list[Medium], pdfs: PdfSizes, counter: TokenCounter, model: str) -> int:
    """The most tokens that these are counted as."""
    return sum(
        most_image_tokens(model, medium.image_size or _PAGE)
        if medium.kind == "image"
        else _pdf_tokens(
            medium,
            pdfs,
            most_image_tokens(model, _PAGE),
            counter.tokens_to_reserve(_pdf_text(medium, pdfs)),
            MOST_PAGE_TEXT_TOKENS,
        )
        for medium in media
    )


def _pdf_size(medium: Medium, pdfs: PdfSizes) -> PdfSize:
    return pdfs.get(sha256_of(medium.pdf() or b""), PdfSize())


def _pdf_text(medium: Medium, pdfs: PdfSizes) -> bytes:
    return _pdf_size(medium, pdfs).text.encode("utf-8", "replace")


def _pdf_tokens(medium: Medium, pdfs: PdfSizes, page_image: int, text_tokens: int, page_text: int) -> int:
    pages = _pdf_size(medium, pdfs).pages
    return pages * page_image + max(text_tokens, pages * page_text)


def _to_json(value: Any) -> bytes:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode("utf-8", "replace")


def _rows(payload: Mapping[str, Any], name: str) -> list[Any]:
    rows = payload.get(name)
    return rows if isinstance(rows, list) else []


def _data_url(url: object) -> str | None:
    return url if isinstance(url, str) and url.startswith("data:") else None


def _text_or_none(value: object) -> str | None:
    return value if isinstance(value, str) else None
