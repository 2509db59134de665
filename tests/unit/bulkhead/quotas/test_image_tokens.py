"""Sizes of images by their headers, and the tokens of each size by the vendors' public rules."""

import base64

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bulkhead.quotas.image_sizes import MAX_BLOCKS, PixelSize, size_of_data_url
from bulkhead.quotas.image_tokens import most_image_tokens

GIF = b"GIF89a" + (320).to_bytes(2, "little") + (200).to_bytes(2, "little") + b"\x00\x00\x00;"
PNG = b"\x89PNG\r\n\x1a\n\x00\x00\x00\rIHDR" + (320).to_bytes(4, "big") + (200).to_bytes(4, "big")
RIFF = b"RIFF\x00\x00\x00\x00WEBP"
EXTENDED = RIFF + b"VP8X" + bytes(8) + (319).to_bytes(3, "little") + (199).to_bytes(3, "little")
LOSSLESS = RIFF + b"VP8L" + bytes(4) + b"\x2f" + (319 | 199 << 14).to_bytes(4, "little") + bytes(9)
LOSSY = RIFF + b"VP8 " + bytes(7) + b"\x9d\x01\x2a" + (320).to_bytes(2, "little") + (200).to_bytes(2, "little")
SCALED = LOSSY[:27] + bytes([LOSSY[27] | 0x40]) + LOSSY[28:]
"""With the upper bits set, which are no part of the size."""
FRAME = b"\xff\xc2\x00\x0b\x08" + (200).to_bytes(2, "big") + (320).to_bytes(2, "big") + b"\x01\x00\x00\x00"
THUMBNAIL = b"\xff\xe1\x00\x20" + b"\xff\xc0\x00\x0b\x08\x00\x01\x00\x01" + bytes(21)
JPEG = b"\xff\xd8" + THUMBNAIL + b"\xff\xff\xdb\x00\x04\x00\x00" + b"\xff\xc4\x00\x04\x00\x00" + FRAME + b"\xff\xda"


def url_of(data: bytes, kind: str = "png") -> str:
    return f"data:image/{kind};base64,{base64.b64encode(data).decode()}"


@pytest.mark.parametrize("data", [GIF, PNG, EXTENDED, LOSSLESS, LOSSY, SCALED, JPEG])
def test_the_header_tells_the_size_whatever_the_type_says(data: bytes) -> None:
    for kind in ("png", "jpeg", "webp", "GIF"):
        assert size_of_data_url(url_of(data + bytes(1_000), kind)) == PixelSize(320, 200)


def little(*sides: int) -> bytes:
    return b"".join(side.to_bytes(2, "little") for side in sides)


def chunk(kind: bytes, body: bytes) -> bytes:
    return kind + len(body).to_bytes(4, "little") + body


SMALL_GIF = b"GIF89a" + little(1, 1) + b"\x80\x00\x00" + bytes(6)
COMMENT = b"!\xfe\x03abc\x00"
SMALL_CANVAS = RIFF + chunk(b"VP8X", bytes(10))


@pytest.mark.parametrize(
    "data",
    [
        pytest.param(SMALL_GIF + COMMENT + b"," + little(0, 0, 320, 200) + b"\x00", id="a frame above the screen"),
        pytest.param(SMALL_GIF + b"," + little(300, 190, 20, 10) + b"\x00", id="a frame beside the screen"),
        pytest.param(
            SMALL_GIF + b"," + little(0, 0, 1, 1) + b"\x00\x02\x01\x00\x00," + little(0, 0, 320, 200) + b"\x00;",
            id="a later frame",
        ),
        pytest.param(PNG[:16] + b"\0\0\0\1\0\0\0\1" + bytes(9) + PNG[8:] + bytes(9), id="a second header"),
        pytest.param(b"\xff\xd8" + FRAME[:5] + b"\0\1\0\1\1" + bytes(3) + FRAME + b"\xff\xda", id="a second frame"),
        pytest.param(SMALL_CANVAS + LOSSY[12:], id="a picture above the canvas"),
        pytest.param(SMALL_CANVAS + chunk(b"ANIM", bytes(6)) + chunk(b"ANMF", bytes(16) + LOSSLESS[12:]), id="a part"),
    ],
)
def test_the_largest_size_that_a_file_tells_counts(data: bytes) -> None:
    assert size_of_data_url(url_of(data)) == PixelSize(320, 200)


@pytest.mark.parametrize(
    "data",
    [
        PNG + bytes(9) + bytes(12) * MAX_BLOCKS,
        SMALL_GIF + b"!\xfe" + b"\x01a" * MAX_BLOCKS,
        SMALL_CANVAS + bytes(8) * MAX_BLOCKS,
        JPEG[:-2] + b"\xff" * (MAX_BLOCKS + 20),
    ],
    ids=["png", "gif", "webp", "jpeg"],
)
def test_a_file_of_very_many_blocks_has_no_size(data: bytes) -> None:
    assert size_of_data_url(url_of(data)) is None


@pytest.mark.parametrize(
    "data",
    [
        pytest.param(SMALL_GIF + b"\x00," + little(0, 0, 320, 200) + b"\x00", id="a byte before a frame"),
        pytest.param(b"\xff\xd8\xff\x00\x00\x04\x00\x00" + JPEG[2:], id="a filler that is no segment"),
        pytest.param(b"\xff\xd8\x00" + JPEG[2:], id="a byte between markers"),
        pytest.param(JPEG[:-2], id="no picture"),
    ],
)
def test_what_decoders_read_in_different_ways_has_no_size(data: bytes) -> None:
    assert size_of_data_url(url_of(data)) is None


@pytest.mark.parametrize(
    "url",
    [
        *("", "https://example.com/a.png", "data:image/png;base64,", "data:image/png;charset=x;base64,AAAA"),
        *(url_of(PNG, "svg+xml"), url_of(PNG, "tiff"), url_of(PNG) + "\n", url_of(b"BM" + bytes(60))),
        *(url_of(PNG[:20]), url_of(JPEG[:40]), url_of(b"\xff\xd8\xff\xe1\x00\x00"), url_of(PNG[:16] + bytes(8))),
        url_of(PNG[:16] + b"\xff" * 8),
    ],
)
def test_a_size_that_cannot_be_read_is_none(url: str) -> None:
    assert size_of_data_url(url) is None


@given(st.binary(max_size=80) | st.binary(max_size=80).map(lambda data: b"\xff\xd8" + data))
def test_any_bytes_have_a_size_or_none(data: bytes) -> None:
    size = size_of_data_url(url_of(data))
    assert size is None or min(size) > 0


@pytest.mark.parametrize(
    ("model", "width", "height", "documented"),
    [
        # OpenAI's own examples and calculator.
        ("gpt-4o-2024-08-06", 1_024, 1_024, 765),
        ("openai/gpt-4o", 2_048, 4_096, 1_105),
        ("gpt-4o", 150, 150, 255),
        ("gpt-4o-mini", 1_024, 1_024, 25_501),
        ("gpt-4.1-mini", 1_024, 1_024, 1_659),
        ("o4-mini", 1_800, 2_400, 2_638),
        ("gpt-5", 1_024, 1_024, 630),
        ("o3", 1_024, 1_024, 675),
        # Anthropic's and Google's.
        ("claude-sonnet-4-5", 1_092, 1_092, 1_590),
        ("claude-opus-4-7", 2_576, 1_600, 4_784),
        ("gemini-2.5-flash", 960, 540, 1_548),
        ("gemini-3-pro", 3_000, 3_000, 1_120),
    ],
)
def test_no_image_counts_less_than_its_vendor_says(model: str, width: int, height: int, documented: int) -> None:
    found = most_image_tokens(model, PixelSize(width, height))
    assert documented <= found <= documented * 4
    assert most_image_tokens("a-model-of-tomorrow", PixelSize(width, height)) >= documented


@given(st.integers(1, 20_000), st.integers(1, 20_000))
def test_the_dearest_rule_is_above_every_other(width: int, height: int) -> None:
    size = PixelSize(width, height)
    known = [most_image_tokens(model, size) for model in ("gpt-4o", "gpt-4o-mini", "o3", "claude-x", "gemini-2.5-pro")]
    assert most_image_tokens("x", size) >= max(known)
