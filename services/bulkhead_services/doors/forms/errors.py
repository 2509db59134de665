"""Refusals in each API's own form. Pure. In: a DoorRefusal. Out: the body of an error, and its headers."""

import math
from typing import Any

from bulkhead_services.doors.port import DoorRefusal

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


def openai_error(refusal: DoorRefusal) -> dict[str, Any]:
    """OpenAI's `error`."""
    kind = _OPENAI.get(refusal.status, "server_error" if refusal.status >= 500 else "invalid_request_error")
    return {"message": _full_message(refusal), "type": kind, "param": refusal.field or None, "code": refusal.code}


def openai_body(refusal: DoorRefusal, _request_id: str) -> dict[str, Any]:
    """The body of an error of OpenAI's API."""
    return {"error": openai_error(refusal)}


def anthropic_body(refusal: DoorRefusal, request_id: str) -> dict[str, Any]:
    """The body of an error of Anthropic's API. code: ours, beside the API's own type."""
    kind = _ANTHROPIC.get(refusal.status, "api_error" if refusal.status >= 500 else "invalid_request_error")
    error = {"type": kind, "message": _full_message(refusal), "code": refusal.code}
    return {"type": "error", "error": error} | ({"request_id": request_id} if request_id else {})


def error_headers(refusal: DoorRefusal) -> dict[str, str]:
    """`x-should-retry` is read by the SDKs of both vendors, before the status."""
    headers = {"x-should-retry": "true" if refusal.retry else "false"}
    if refusal.retry_after_s is not None:
        headers["Retry-After"] = str(max(1, math.ceil(refusal.retry_after_s)))
    if refusal.status == 401:
        headers["WWW-Authenticate"] = 'Bearer realm="bulkhead"'
    return headers


def _full_message(refusal: DoorRefusal) -> str:
    return f"{refusal.message}; {refusal.hint}" if refusal.hint else refusal.message
