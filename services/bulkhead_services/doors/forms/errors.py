"""Refusals in each API's own form. Pure. In: a Refusal. Out: the body of an error, and its headers."""

import math
from typing import Any

from bulkhead_services.doors.port import Refusal

_OPENAI = {401: "authentication_error", 403: "permission_error", 429: "rate_limit_error"}
_ANTHROPIC = {
    401: "authentication_error",
    402: "billing_error",
    403: "permission_error",
    404: "not_found_error",
    408: "timeout_error",
    413: "request_too_large",
    429: "rate_limit_error",
    503: "overloaded_error",
    504: "timeout_error",
    529: "overloaded_error",
}


def openai(refusal: Refusal) -> dict[str, Any]:
    """OpenAI's `error`."""
    kind = _OPENAI.get(refusal.status, "server_error" if refusal.status >= 500 else "invalid_request_error")
    return {"message": _sentence(refusal), "type": kind, "param": refusal.field or None, "code": refusal.code}


def openai_body(refusal: Refusal, _request_id: str) -> dict[str, Any]:
    """The body of an error of OpenAI's API."""
    return {"error": openai(refusal)}


def anthropic_body(refusal: Refusal, request_id: str) -> dict[str, Any]:
    """The body of an error of Anthropic's API. code: ours, beside the API's own type."""
    kind = _ANTHROPIC.get(refusal.status, "api_error" if refusal.status >= 500 else "invalid_request_error")
    error = {"type": kind, "message": _sentence(refusal), "code": refusal.code}
    return {"type": "error", "error": error} | ({"request_id": request_id} if request_id else {})


def headers(refusal: Refusal) -> dict[str, str]:
    """`x-should-retry` is read by the SDKs of both vendors, before the status."""
    found = {"x-should-retry": "true" if refusal.retry else "false"}
    if refusal.retry_after_s is not None:
        found["Retry-After"] = str(max(1, math.ceil(refusal.retry_after_s)))
    if refusal.status == 401:
        found["WWW-Authenticate"] = 'Bearer realm="bulkhead"'
    return found


def _sentence(refusal: Refusal) -> str:
    return f"{refusal.message}; {refusal.hint}" if refusal.hint else refusal.message
