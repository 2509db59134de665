"""Images, documents and sounds in a request of any API: found in their places, counted, or named as gaps. Pure.

Enters: a body, and the sizes of its PDFs. Leaves: what each may cost; the body without them; or with words in the
place of what nobody can count before it is paid for. Only what stands in a part's place is one: in a text,
or in a tool's arguments, the same words are text.
"""

import base64
import hashlib
import json
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from bulkhead.model_apis.chat_view import fields_of
from bulkhead.model_apis.gaps import Gap
from bulkhead.quotas.image_sizes import PixelSize, size_of_data_url
from bulkhead.quotas.image_tokens import most_image_tokens
from bulkhead.quotas.token_estimates import IMAGE_TOKENS, TokenCounter

PDF_HEAD = b"%PDF-"
_PDF_TYPE = "application/pdf"
_TEXT_TYPES = ("text/", "application/json", "application/xml", "application/yaml", "application/x-ndjson")
"""Beginnings of the media types whose bytes are what a model reads."""
_DATA_URL = re.compile(r"data:([\w.+-]+/[\w.+-]+)(?:;charset=[\w-]+)?;base64,([A-Za-z0-9+/]+={0,2})", re.I | re.ASCII)
"""All of a data URL: what follows a second comma would be read by a provider, and not here."""
_BASE64 = re.compile(r"[A-Za-z0-9+/]+={0,2}")
MOST_PAGE_TEXT_TOKENS = 3_000
"""Text of one page by the vendors' rule, where what our reader finds is less."""
_PAGE = PixelSize(1_200, 3_200)
"""A page is shown as an image, of a size that its vendor chooses: a long one, which makes the most tiles."""
NOT_AN_IMAGE = "it is not the Base64 of a PNG, JPEG, GIF or WebP in the request itself, so its size is not known"
ELSEWHERE = "it lies elsewhere, so its size is not known"
NOT_READ = "it is neither text nor a PDF, so its tokens have no bound"
NOT_A_SOUND = "it is not the Base64 of a WAV or an MP3 in the request itself, so its length is not known"
NOT_LISTED = "it is not among the fields whose cost has a bound"
_KEPT = ("cache_control", "citations")
_NAMES = {"filename", "title", "file", "file_data", "source", "media_type", "data"}
"""Fields that a text document has no need of."""
LEAST_SAMPLES_PER_S = 8_000
"""Of a WAV: with fewer of them its tokens are no longer fewer than its bytes."""


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
    """An image, a document or a sound. data: its Base64; None where it lies elsewhere or is no such thing."""

    kind: Literal["image", "document", "sound"]
    data: str | None
    media_type: str = ""

    @property
    def image_size(self) -> PixelSize | None:
        """Its size in pixels; None where it cannot be told."""
        return size_of_data_url(f"data:{self.media_type};base64,{self.data or ''}")

    def content(self) -> bytes | None:
        """The bytes of a document or of a sound; None where it is no Base64."""
        try:
            return base64.b64decode(self.data, validate=True) if self.data else None
        except ValueError:
            return None

    def pdf(self) -> bytes | None:
        """The bytes of a PDF; None of anything else."""
        content = self.content() if self.kind == "document" else None
        return content if content is not None and PDF_HEAD in content[:1_024] else None

    def text(self) -> str | None:
        """The words of a document of text; None of anything else."""
        content = self.content() if self.kind == "document" and self.pdf() is None else None
        if content is None or not (self.media_type or "text/").startswith(_TEXT_TYPES):
            return None
        try:
            text = content.decode()
        except UnicodeDecodeError:
            return None
        return None if "\0" in text else text

    def objection(self, pdfs: PdfSizes) -> str:
        """The reason why its tokens have no bound; "" where they have one."""
        match self.kind:
            case "image":
                return "" if self.data and self.image_size is not None else NOT_AN_IMAGE
            case "sound":
                return "" if _has_length(self.content() or b"", self.media_type) else NOT_A_SOUND
        if self.data is None:
            return ELSEWHERE
        if (pdf := self.pdf()) is not None:
            size = pdfs.get(sha256_of(pdf))
            return size.problem if size is not None else "it was not read"
        return NOT_READ if self.text() is None else ""


def _has_length(sound: bytes, form: str) -> bool:
    """True for a sound that lasts no longer than its bytes allow: its tokens are fewer than those."""
    if form == "wav":
        rate = int.from_bytes(sound[24:28], "little")
        return sound[:4] == b"RIFF" and sound[8:16] == b"WAVEfmt " and rate >= LEAST_SAMPLES_PER_S
    if sound[:3] == b"ID3" and len(sound) > 10:
        sound = sound[10 + sum(byte << 7 * place for place, byte in enumerate(reversed(sound[6:10]))) :]
    return form == "mp3" and len(sound) > 1 and sound[0] == 0xFF and sound[1] >= 0xE0


def sha256_of(content: bytes) -> str:
    """By which a PDF's size is kept."""
    return hashlib.sha256(content).hexdigest()


def medium_of(part: Mapping[str, Any]) -> Medium | None:
    """The image, document or sound that a part is, in the words of any API; None of a text, and of a text document."""
    match part.get("type"):
        case "image_url":
            return _medium_of_url("image", fields_of(part.get("image_url")).get("url"))
        case "input_image" | "input_file" if part.get("file_id") or part.get("file_url"):
            return Medium("image" if part["type"] == "input_image" else "document", None)
        case "input_image":
            return _medium_of_url("image", part.get("image_url"))
        case "input_audio":
            sound = fields_of(part.get("input_audio"))
            return Medium("sound", _base64_or_none(sound.get("data")), str(sound.get("format")))
        case "file":
            file = fields_of(part.get("file"))
            return _medium_of_url("document", None if file.get("file_id") else file.get("file_data"))
        case "input_file":
            return _medium_of_url("document", part.get("file_data"))
        case "image" | "document":
            source = fields_of(part.get("source"))
            is_image = part["type"] == "image"
            if not is_image and source.get("type") in ("text", "content"):
                return None
            data = source.get("data") if source.get("type") == "base64" else None
            media_type = str(source.get("media_type"))
            return Medium("image" if is_image else "document", _base64_or_none(data), media_type)
        case None if isinstance(part.get("inlineData"), dict):
            media_type, data = str(part["inlineData"].get("mimeType")), part["inlineData"].get("data")
            is_image = media_type.startswith("image/")
            return Medium("image" if is_image else "document", _base64_or_none(data), media_type)
    return None


def _medium_of_url(kind: Literal["image", "document"], value: object) -> Medium:
    """A medium by its data URL. A document may be Base64 alone, too."""
    if isinstance(value, str) and (matched := _DATA_URL.fullmatch(value)):
        return Medium(kind, matched[2], matched[1].lower())
    return Medium(kind, _base64_or_none(value) if kind == "document" else None)


def rewrite_medium(part: dict[str, Any], medium: Medium, text_type: str) -> dict[str, Any]:
    """The part again, out of what was read of it: nothing else reaches a provider. Texts need no file."""
    kept = {name: part[name] for name in _KEPT if name in part}
    if (text := medium.text()) is not None:
        name = _texts_of({**part, **fields_of(part.get("file"))}, "filename", "title")
        return {"type": text_type, "text": "\n".join([*(f"[{title}]" for title in name.values()), text]), **kept}
    media_type = _PDF_TYPE if medium.kind == "document" else medium.media_type
    url = f"data:{media_type};base64,{medium.data}"
    match part["type"]:
        case "image_url":
            return {"type": "image_url", "image_url": {"url": url, **_texts_of(part["image_url"], "detail")}, **kept}
        case "input_image":
            return {"type": "input_image", "image_url": url, **_texts_of(part, "detail")}
        case "input_audio":
            return {"type": "input_audio", "input_audio": {"data": medium.data, "format": media_type}, **kept}
        case "file":
            return {"type": "file", "file": {"file_data": url, **_texts_of(part["file"], "filename")}, **kept}
        case "input_file":
            return {"type": "input_file", "file_data": url, **_texts_of(part, "filename")}
        case kind:
            source = {"type": "base64", "media_type": media_type, "data": medium.data}
            return {"type": kind, "source": source, **_texts_of(part, "title", "context"), **kept}


def _texts_of(fields: Mapping[str, Any], *names: str) -> dict[str, str]:
    return {name: fields[name] for name in names if isinstance(fields.get(name), str)}


def part_lists(payload: Mapping[str, Any]) -> Iterator[list[Any]]:
    """Lists of parts of a body: of messages, of items, and of what stands within them."""
    rows = (*_rows(payload, "messages"), *_rows(payload, "input"), *_rows(payload, "contents"))
    for row in rows:
        lists = {name: value for name, value in row.items() if isinstance(value, list)} if isinstance(row, dict) else {}
        for name in ("content", "output", "parts") if lists else ():
            if name in lists:
                yield from _nested_lists(lists[name])


def _nested_lists(parts: list[Any]) -> Iterator[list[Any]]:
    yield parts
    for part in parts:
        if not isinstance(part, dict):
            continue
        inner = part.get("content") if part.get("type") in ("tool_result", "mcp_tool_result", "search_result") else None
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


def rewrite_media(payload: dict[str, Any], pdfs: PdfSizes, text_type: str) -> list[Gap]:
    """Write each medium as it was read, and words in the place of what has no bound. payload: changed in place.
    text_type: of a part of text.
    """
    gaps = []
    for parts in part_lists(payload):
        for place, part in enumerate(parts):
            medium = medium_of(part) if isinstance(part, dict) else None
            if medium is None:
                continue
            if objection := medium.objection(pdfs):
                gaps.append(Gap(medium.kind, objection))
                parts[place] = {"type": text_type, "text": gaps[-1].text}
            elif (written := rewrite_medium(part, medium, text_type)) != part:
                parts[place] = written
                gaps += [
                    Gap(f"the field {name[:32]} beside {medium.kind}", NOT_LISTED)
                    for name in sorted(_field_names(part) - _field_names(written) - _NAMES)
                ]
    return gaps


def _field_names(part: Mapping[str, Any]) -> set[str]:
    """Names of the fields of a part that hold anything, and of those within."""
    inner = [fields_of(value) for name, value in part.items() if name not in _KEPT]
    return {name for fields in (part, *inner) for name, value in fields.items() if value}


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
    return _sum_tokens(media, _PdfTokens(pdfs, IMAGE_TOKENS, 0, counter.estimate), lambda _: IMAGE_TOKENS)


def media_tokens_to_reserve(media: list[Medium], pdfs: PdfSizes, count_text: Callable[[bytes], int], model: str) -> int:
    """The most tokens that these are counted as. count_text: of the words of a PDF."""
    of_page = most_image_tokens(model, _PAGE)
    of_pdfs = _PdfTokens(pdfs, of_page, MOST_PAGE_TEXT_TOKENS, count_text)
    return _sum_tokens(media, of_pdfs, lambda image: most_image_tokens(model, image.image_size or _PAGE))


def _sum_tokens(media: list[Medium], of_pdfs: "_PdfTokens", of_image: Callable[[Medium], int]) -> int:
    return sum(of_image(medium) if medium.kind == "image" else of_pdfs.tokens_of(medium) for medium in media)


class _PdfTokens:
    """Tokens of PDFs; each is counted once, however often it stands in a body."""

    def __init__(self, pdfs: PdfSizes, page_image: int, page_text: int, count_text: Callable[[bytes], int]) -> None:
        self._pdfs, self._page_image, self._page_text, self._count_text = pdfs, page_image, page_text, count_text
        self._counted: dict[str, int] = {}

    def tokens_of(self, medium: Medium) -> int:
        """The tokens of its pages and of its text."""
        digest = sha256_of(medium.pdf() or b"")
        if digest not in self._counted:
            size = self._pdfs.get(digest, PdfSize())
            text = self._count_text(size.text.encode("utf-8", "replace"))
            self._counted[digest] = size.pages * self._page_image + max(text, size.pages * self._page_text)
        return self._counted[digest]


def _to_json(value: Any) -> bytes:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode("utf-8", "replace")


def _rows(payload: Mapping[str, Any], name: str) -> list[Any]:
    rows = payload.get(name)
    return rows if isinstance(rows, list) else []


def _base64_or_none(value: object) -> str | None:
    return value if isinstance(value, str) and _BASE64.fullmatch(value) else None
