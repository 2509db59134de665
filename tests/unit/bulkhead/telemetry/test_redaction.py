"""Keys of model providers in a text: each vendor's form is taken out, and words that look a little like one stay."""

import pytest
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider

from bulkhead.telemetry import trace
from bulkhead.telemetry.redaction import without_keys


@pytest.mark.parametrize(
    "key",
    [
        "sk-proj-0123456789abcdefABCDEF",
        "sk-ant-api03-0123456789_abcdef-ABCDEF-0123456789AA",
        "AIzaSyD-0123456789abcdef0123456789abcde",
        "AIzaSyD-0123456789********",
        "AQ.Ab8RN6K0123456789abcdef_0123456789",
        "ya29.a0AfH6SMBx0123456789-abcdef_0123",
        "gsk_0123456789abcdefABCDEF0123456789",
        "hf_0123456789abcdefABCDEF0123456789",
        "xai-0123456789abcdefABCDEF0123456789",
    ],
)
@pytest.mark.parametrize(
    "around", ["{}", "Incorrect API key provided: {}. See the docs.", '{{"x-api-key": "{}"}}', "({})"]
)
def test_a_key_is_taken_out(key: str, around: str) -> None:
    said = without_keys(around.format(key))
    assert said == around.format("[redacted]") and "0123456789" not in said


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("Authorization: Bearer abc.def-123, then", "Authorization: [redacted], then"),
        (
            "POST https://host/v1beta/models/m:generate?key=abc123&alt=sse",
            "POST https://host/v1beta/models/m:generate?key=[redacted]&alt=sse",
        ),
        ("proxy http://me:word@proxy:3128/", "proxy http://[redacted]proxy:3128/"),
    ],
)
def test_a_key_is_known_by_its_place(text: str, said: str) -> None:
    assert without_keys(text) == said


@pytest.mark.parametrize(
    "text",
    [
        "a task-0123456789 of the risk-adjusted plan",
        "the desk-guide's mask-0123456",
        "AIza is short",
        "https://example.org/a@b",
    ],
)
def test_what_is_no_key_stays(text: str) -> None:
    assert without_keys(text) == text


def test_a_prompt_on_a_span_is_without_keys(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trace, "_records_prompts", True)
    with TracerProvider().get_tracer("test").start_as_current_span("call") as span:
        trace.record_prompt_text("input", [{"role": "user", "content": "use AIzaSyD-0123456789abcdef0123456789abcde"}])
        assert isinstance(span, ReadableSpan) and span.attributes
        assert span.attributes["input"] == '[{"role": "user", "content": "use [redacted]"}]'
