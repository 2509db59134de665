"""Providers' errors as faults. Enters: a status with headers and body, or an error object. Leaves: a fault."""

import re
from collections.abc import Mapping
from email.utils import parsedate_to_datetime

from bulkhead.model_apis.token_counts import GAVE_UP
from bulkhead_contracts import bounds
from bulkhead_services.model_gateway.providers.fields import (
    mapping_of,
    plain_text,
    read_object,
    replace_surrogates,
    rows_of,
    short_text,
)
from bulkhead_services.model_gateway.providers.port import ProviderFault

_OVERFLOW = re.compile(
    r"context.{0,3}length|context window|context limit|context size|maximum context|too many (?:input )?tokens"
    r"|(?:prompt|input|request) is too (?:long|large)|token count.{0,40}exceeds|reduce the length of the",
    re.I,
)
_FILTERED = re.compile(
    r"content.?filter|content management policy|flagged as potentially violating|content.?policy.?violation", re.I
)
_NO_CREDIT = re.compile(r"credit balance is too low|insufficient_quota", re.I)
_BAD_KEY = re.compile(r"api key not valid|invalid api key|incorrect api key", re.I)
FILTERS = frozenset({"content_filter", "invalid_prompt", "bio_policy", "misalignment_policy_violation"})
"""Names of errors by which a provider withholds an answer for what stands in the prompt or in the answer."""
REQUEST_REFUSED = "request_refused"
"""A request that this provider takes from nobody: whoever sent it has to change it."""
_HINT_AT_REQUEST = "the provider does not take this request: look at its message"
_OVERFLOWS = frozenset({"context_length_exceeded", "exceed_context_size_error", "request_too_large"})
_CREDITS = frozenset({"insufficient_quota", "billing_error"})
_KEYS = frozenset(
    {"authentication_error", "permission_error", "invalid_api_key", "unauthenticated", "permission_denied"}
)
_RATES = frozenset({"rate_limit_error", "rate_limit_exceeded", "resource_exhausted", "429"})
_REQUESTS = frozenset({"invalid_request_error", "invalid_argument", "data_residency_mismatch", "not_found_error"})


def fault_of_status(
    status: int, headers: Mapping[str, str], body: bytes, key_setting_name: str = "its key"
) -> ProviderFault:
    """Fault for an HTTP status other than 200; below 300 something may have been generated.

    key_setting_name: the setting that holds the key of this provider.
    """
    document = read_object(body)
    error = document.get("error") if document else None
    names, message = _names_and_message(error if error else document)
    message = message or f"status {status}"
    wait = retry_after_s(headers, error)
    if status in (400, 413, 422, 500) and (status == 413 or names & _OVERFLOWS or _OVERFLOW.search(message)):
        return _overflow_fault(message)
    if status in (400, 403, 422) and (names & FILTERS or _FILTERED.search(message)):
        return filter_fault(message, consumed=False)
    if status in (401, 403) or (status == 400 and _BAD_KEY.search(message)):
        hint = f"check {key_setting_name} and what it may use"
        return ProviderFault(
            "provider_error", f"the provider refused the key ({status}): {message}", hint, False, True, False
        )
    if status == 402 or names & _CREDITS or (status in (400, 429) and _NO_CREDIT.search(message)):
        hint = "the account has no credit left: top it up"
        return ProviderFault("rate_limited", message, hint, False, True, False, retry_after_s=wait)
    if status == 429:
        hint = "lower BULKHEAD_PROVIDER_CONCURRENCY"
        return ProviderFault("rate_limited", message, hint, True, True, False, retry_after_s=wait)
    if status >= 500 or status in (408, 409, 425):
        consumed, message = status in GAVE_UP, f"status {status}: {message}"
        return ProviderFault("provider_error", message, "", True, True, consumed, retry_after_s=wait)
    if status == 404:
        hint = "check the model's name and the provider's base URL"
        return ProviderFault("unknown_model", message, hint, False, True, False)
    if 300 <= status < 400:
        where = short_text(headers.get("location", "")) or "an address that it does not tell"
        hint = "redirects are not followed, since they would take the key along: set the provider's base URL"
        return ProviderFault(
            "provider_error", f"status {status}: the endpoint has moved to {where}", hint, False, True, False
        )
    if status < 300:
        hint = "an answer has the status 200: check the provider's base URL, and what stands before it"
        return ProviderFault("provider_error", f"status {status}: it is none of an answer", hint, outage=True)
    return ProviderFault(REQUEST_REFUSED, f"status {status}: {message}", _HINT_AT_REQUEST, False, False, False)


def fault_in_body(error: object) -> ProviderFault:
    """Fault for an error object behind a 200 or inside a stream; tokens may have been used by then."""
    names, message = _names_and_message(error)
    if names & _OVERFLOWS or _OVERFLOW.search(message):
        return _overflow_fault(message)
    if names & FILTERS or _FILTERED.search(message):
        return filter_fault(message)
    description = f"status 200 with an error: {message or ', '.join(sorted(names)) or 'without a message'}"
    if names & _CREDITS:
        return ProviderFault("rate_limited", description, "the account has no credit left: top it up", outage=True)
    if names & _RATES:
        wait = retry_after_s({}, error)
        return ProviderFault(
            "rate_limited", description, "lower BULKHEAD_PROVIDER_CONCURRENCY", True, True, retry_after_s=wait
        )
    if names & _KEYS:
        return ProviderFault("provider_error", description, "check the provider's key and what it may use", outage=True)
    if names & _REQUESTS:
        return ProviderFault(REQUEST_REFUSED, description, _HINT_AT_REQUEST)
    return ProviderFault("error_body", description, retryable=True, outage=True)


def filter_fault(reason: str, *, consumed: bool = True) -> ProviderFault:
    """Fault for an answer that a filter of the provider withholds."""
    hint = "change what the filter objects to in the objective or in its documents, or use another model"
    return ProviderFault(
        "content_filter", f"the provider's filter withheld the answer: {reason}", hint, consumed=consumed
    )


def refusal_fault(reason: str) -> ProviderFault:
    """Fault for a model that declines. reason: its own words, or the provider's reason."""
    hint = "the model declines what it is asked for: put it another way, or use another model"
    return ProviderFault("model_refused", f"the model refused: {reason}"[: bounds.MAX_REASON_CHARS], hint)


def retry_after_s(headers: Mapping[str, str], error: object = None) -> float | None:
    """Seconds that the provider asks to wait; None when it does not say, or says what is no time.

    `retry-after-ms` counts before `Retry-After`. A date is read against the answer's own `Date`, since clocks
    differ. Gemini says it in the error (google.rpc.RetryInfo).
    """
    if (wait := _parse_seconds(headers.get("retry-after-ms", ""), 1000)) is not None:
        return wait
    text = headers.get("retry-after", "")
    if (wait := _parse_seconds(text)) is not None:
        return wait
    try:
        until, answered_at = (parsedate_to_datetime(date) for date in (text, headers.get("date", "")))
        return min(max(0.0, (until - answered_at).total_seconds()), float(bounds.MAX_RETRY_AFTER_S))
    except (ValueError, TypeError, OverflowError):
        delays = (row.get("retryDelay") for row in rows_of(mapping_of(error).get("details")))
        return next((_parse_seconds(delay.removesuffix("s")) for delay in delays if isinstance(delay, str)), None)


def _overflow_fault(message: str) -> ProviderFault:
    hint = "ask for less at once, or use a model with a longer context"
    return ProviderFault("context_overflow", message, hint, consumed=False)


def _names_and_message(error: object) -> tuple[frozenset[str], str]:
    """Names of an error (code, type, status; in small letters) and its message."""
    if not isinstance(error, dict):
        return frozenset(), _one_line(plain_text(error))
    values = (error.get(name) for name in ("code", "type", "status"))
    names = {short_text(str(name)).lower() for name in values if isinstance(name, str | int)}
    message = plain_text(error.get("message")) or plain_text(error.get("detail")) or plain_text(error.get("type"))
    return frozenset(names), _one_line(message)


def _one_line(text: str) -> str:
    return replace_surrogates(" ".join(text.split())[: bounds.MAX_PROVIDER_ERROR_CHARS])


def _parse_seconds(text: str, units_per_s: int = 1) -> float | None:
    try:
        value = float(text) / units_per_s
    except ValueError:
        return None
    return min(max(0.0, value), float(bounds.MAX_RETRY_AFTER_S)) if value == value else None
