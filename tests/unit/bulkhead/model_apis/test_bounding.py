"""Parts of a conversation: what is counted is what is sent, and nothing beside it."""

import base64
import json
from typing import Any

import pytest

from bulkhead.model_apis.allowed import ANTHROPIC, CHAT, RESPONSES
from bulkhead.model_apis.bounding import bound_payload
from bulkhead.model_apis.media import PdfSize, sha256_of
from bulkhead_contracts.model import ModelApi

HELLO = base64.b64encode(b"hello!").decode()
PDF = b"%PDF-1.4\n" + b"x" * 90
PDF_TEXT = base64.b64encode(PDF).decode()
PDF_URL = f"data:application/pdf;base64,{PDF_TEXT}"
PNG = b"\x89PNG\r\n\x1a\n\x00\x00\x00\rIHDR" + bytes([0, 0, 0, 1] * 2)
PNG_URL = f"data:image/png;base64,{base64.b64encode(PNG).decode()}"
MP3 = base64.b64encode(b"ID3\x04\x00\x00\x00\x00\x00\x02__\xff\xfb\x90\x64" + b"\0" * 400).decode()
FRAMES = b"fmt \x10\x00\x00\x00\x01\x00\x01\x00"


def wav(samples_per_s: int) -> str:
    head = b"RIFF\x00\x00\x00\x00WAVE" + FRAMES + samples_per_s.to_bytes(4, "little")
    return base64.b64encode(head + b"\0" * 400).decode()


def bounded(part: Any, api: ModelApi = CHAT) -> tuple[Any, list[str]]:
    """A part as it is sent, and what is left out."""
    payload = {"messages": [{"role": "user", "content": [part]}]}
    gaps = bound_payload(api, payload, {sha256_of(PDF): PdfSize(1, "x")})
    return payload["messages"][0]["content"][0], [gap.what for gap in gaps]


def file(data: object, **more: object) -> dict[str, Any]:
    return {"type": "file", "file": {"file_data": data, "filename": "a.pdf", **more}}


@pytest.mark.parametrize(
    "part",
    [
        file("https://example.org/1000-pages.pdf?x=,aGVsbG8h"),
        file(f"{PDF_URL},{HELLO}"),
        file(f"data:text/plain;base64,{HELLO},{PDF_TEXT}"),
        file(f"data:application/pdf;base64,{HELLO}"),
        file(f"data:application/vnd.openxmlformats;base64,{HELLO}"),
        file({"url": "https://example.org/a.pdf"}),
        file(PDF_URL, file_id="f"),
        {"type": "image_url", "image_url": {"url": f"https://example.org/a.png?{PNG_URL}"}},
        {"type": "image_url", "image_url": {"url": f"{PNG_URL},{HELLO}"}},
        {"type": "input_audio", "input_audio": {"data": "https://example.org/10h.mp3", "format": "mp3"}},
        {"type": "input_audio", "input_audio": {"url": "https://example.org/10h.mp3", "id": "audio_1"}},
        {"type": "input_audio", "input_audio": {"data": wav(1), "format": "wav"}},
        {"type": "input_audio", "input_audio": {"data": MP3, "format": "ogg"}},
    ],
)
def test_what_has_no_bound_is_sent_to_nobody(part) -> None:
    sent, [left_out] = bounded(part)
    assert sent["type"] == "text" and sent["text"].startswith(f"[{left_out} left out: ")


@pytest.mark.parametrize(
    ("part", "sent", "left_out"),
    [
        (file(PDF_URL, url="f"), file(PDF_URL), ["the field url beside document"]),
        (file(PDF_TEXT), file(PDF_URL), []),
        (
            file(f"data:text/plain;base64,{HELLO}", file_url="https://x/y.pdf"),
            {"type": "text", "text": "[a.pdf]\nhello!"},
            ["the field file_url beside document"],
        ),
        (
            {"type": "image_url", "image_url": {"url": PNG_URL, "detail": "high", "max_pixels": 10**9}},
            {"type": "image_url", "image_url": {"url": PNG_URL, "detail": "high"}},
            ["the field max_pixels beside image"],
        ),
        (
            {"type": "image_url", "image_url": {"url": PNG_URL}, "video_url": {"url": "u"}, "min_pixels": 10**9},
            {"type": "image_url", "image_url": {"url": PNG_URL}},
            ["the field min_pixels beside image", "the field video_url beside image"],
        ),
        (
            {"type": "input_audio", "input_audio": {"data": MP3, "format": "mp3", "url": "u"}},
            {"type": "input_audio", "input_audio": {"data": MP3, "format": "mp3"}},
            ["the field url beside sound"],
        ),
        (
            {"type": "text", "text": "x", "image_url": {"url": "https://x/y.png"}},
            {"type": "text", "text": "x"},
            ["the field image_url of a part"],
        ),
        ({"type": "text", "text": {"file_id": "f"}}, {"type": "text"}, ["the field text of a part"]),
        (
            {"type": "text", "text": "x", "cache_control": {"type": "ephemeral", "ttl": "9h"}},
            {"type": "text", "text": "x"},
            ["the field cache_control of a part"],
        ),
    ],
)
def test_a_part_is_sent_as_it_was_read(part, sent, left_out) -> None:
    assert bounded(part) == (sent, left_out)


@pytest.mark.parametrize(
    "part",
    [
        file(PDF_URL),
        {"type": "image_url", "image_url": {"url": PNG_URL, "detail": "low"}},
        {"type": "input_audio", "input_audio": {"data": wav(8_000), "format": "wav"}},
        {"type": "text", "text": "x", "cache_control": {"type": "ephemeral", "ttl": "1h"}},
        {"type": "refusal", "refusal": "No."},
    ],
)
def test_a_usual_part_stays_byte_by_byte(part) -> None:
    sent, left_out = bounded(part)
    assert json.dumps(sent) == json.dumps(part) and not left_out


def test_parts_of_other_apis_are_sent_as_they_were_read_too() -> None:
    image = {"type": "input_image", "image_url": PNG_URL, "detail": "high"}
    assert bounded(image | {"url": "f"}, RESPONSES) == (image, ["the field url beside image"])
    document = {"type": "input_file", "file_data": PDF_URL, "filename": "a.pdf"}
    assert bounded(document | {"url": "u"}, RESPONSES) == (document, ["the field url beside document"])
    source = {"type": "base64", "media_type": "application/pdf", "data": PDF_TEXT}
    block = {"type": "document", "source": source, "title": "a", "cache_control": {"type": "ephemeral"}}
    assert bounded(block, ANTHROPIC) == (block, [])
    assert bounded({**block, "source": {**source, "url": "u"}}, ANTHROPIC) == (block, ["the field url beside document"])
    fetched = {"type": "web_fetch_result", "content": {"type": "document", "source": source}}
    sent, left_out = bounded({"type": "web_fetch_tool_result", "tool_use_id": "s", "content": fetched}, ANTHROPIC)
    assert sent["type"] == "text" and left_out == ["a fetched document"]


def test_a_message_has_the_fields_of_a_message() -> None:
    call = {"id": "c", "type": "function", "function": {"name": "f", "arguments": "{}"}}
    message = {"role": "assistant", "content": None, "tool_calls": [call], "reasoning_content": "Hm."}
    extra = {"files": ["f"], "attachments": [{"file_id": "f"}], "annotations": [], "audio": None}
    payload = {
        "messages": [message | extra],
        "tools": [{"type": "function", "function": {"name": "f"}, "files": ["f"]}],
    }
    gaps = bound_payload(CHAT, payload, {})
    assert payload == {"messages": [message], "tools": [{"type": "function", "function": {"name": "f"}}]}
    told = ["files of a message", "attachments of a message", "files of a tool"]
    assert [gap.what for gap in gaps] == [f"the field {name}" for name in told]
