"""Providers' errors as faults. Enters: a status with its headers and body, or an error object. Leaves: a `Fault`."""

import re
from collections.abc import Mapping
from email.utils import parsedate_to_datetime

from bulkhead_contracts import bounds
from bulkhead_services.model_gateway.providers.fields import mapping, plain, read_object, rows, short
from bulkhead_services.model_gateway.providers.port import Fault

_OVERFLOW = re.compile(
    r"context.{0,3}length|context window|maximum context|(?:prompt|input) is too long|too many (?:input )?tokens"
    r"|token count.{0,40}exceeds",
    re.I,
)
_NO_CREDIT = re.compile(r"credit balance is too low|insufficient_quota", re.I)
_BAD_KEY = re.compile(r"api key not valid|invalid api key|incorrect api key", re.I)


def of_status(status: int, headers: Mapping[str, str], body: bytes, key_variable: str = "OPENAI_API_KEY") -> Fault:
    """Fault for an HTTP error status; nothing was generated, so nothing is owed.

    key_variable: the setting that holds the key of this provider.
    """
    found = read_object(body)
    error = found.get("error") if found else None
    code, said = _text(error if error else found)
    said = said or f"status {status}"
    wait = retry_after_s(headers, error)
    if status in (400, 413) and (code == "context_length_exceeded" or _OVERFLOW.search(said)):
        return _overflow(said)
    if status in (401, 403) or (status == 400 and _BAD_KEY.search(said)):
        hint = f"check {key_variable} and what it may use"
        return Fault("provider_error", f"the provider refused the key ({status}): {said}", hint, False, True, False)
    if status == 402 or code == "insufficient_quota" or (status in (400, 429) and _NO_CREDIT.search(said)):
        hint = "the account has no credit left: top it up"
        return Fault("rate_limited", said, hint, False, True, False, retry_after_s=wait)
    if status == 429:
        hint = "lower BULKHEAD_PROVIDER_CONCURRENCY"
        return Fault("rate_limited", said, hint, True, True, False, retry_after_s=wait)
    if status >= 500 or status in (408, 409, 425):
        return Fault("provider_error", f"status {status}: {said}", "", True, True, False, retry_after_s=wait)
    if status == 404:
        hint = "check the model's name and the provider's base URL"
        return Fault("unknown_model", said, hint, False, True, False)
    hint = "the provider does not take this request: look at its message"
    return Fault("provider_error", f"status {status}: {said}", hint, False, False, False)


def in_body(error: object) -> Fault:
    """Fault for an error object behind a 200 or inside a stream; tokens may have been used by then."""
    code, said = _text(error)
    if code == "context_length_exceeded" or _OVERFLOW.search(said):
        return _overflow(said)
    return Fault("error_body", f"status 200 with an error: {said}", retryable=True, outage=True)


def retry_after_s(headers: Mapping[str, str], error: object = None) -> float | None:
    """How long the provider asks to wait, in seconds; None when it does not say, or says what is no time.

    `retry-after-ms` counts before `Retry-After`. A date is read against the answer's own `Date`, since clocks differ.
    Gemini says it in the error (google.rpc.RetryInfo).
    """
    if (wait := _seconds(headers.get("retry-after-ms", ""), 1000)) is not None:
        return wait
    text = headers.get("retry-after", "")
    if (wait := _seconds(text)) is not None:
        return wait
    try:
        until, now = (parsedate_to_datetime(one) for one in (text, headers.get("date", "")))
        return min(max(0.0, (until - now).total_seconds()), float(bounds.MAX_RETRY_AFTER_S))
    except (ValueError, TypeError, OverflowError):
        delays = (row.get("retryDelay") for row in rows(mapping(error).get("details")))
        return next((_seconds(one.removesuffix("s")) for one in delays if isinstance(one, str)), None)


def _overflow(said: str) -> Fault:
    hint = "ask for less at once, or use a model with a longer context"
    return Fault("context_overflow", said, hint, consumed=False)


def _text(error: object) -> tuple[str, str]:
    if isinstance(error, dict):
        said = plain(error.get("message")) or plain(error.get("detail")) or plain(error.get("type"))
        return short(error.get("code")), " ".join(said.split())[: bounds.MAX_PROVIDER_ERROR_CHARS]
    return "", " ".join(plain(error).split())[: bounds.MAX_PROVIDER_ERROR_CHARS]


def _seconds(text: str, units_per_s: int = 1) -> float | None:
    try:
        value = float(text) / units_per_s
    except ValueError:
        return None
    return min(max(0.0, value), float(bounds.MAX_RETRY_AFTER_S)) if value == value else None
