"""Errors over HTTP as RFC 9457 problem details; `hint` says what to do next."""

from collections.abc import Mapping

from pydantic import ConfigDict
from starlette.responses import JSONResponse

from bulkhead.bus.port import BusError, PublishRefused
from bulkhead.http_server.connections import MEDIA_TYPE, TYPE_PREFIX
from bulkhead_contracts.types import Contract


class FieldError(Contract):
    """One field that does not fit."""

    field: str
    message: str


class ProblemDetails(Contract):
    """Body of every error answer (RFC 9457). `code` is the last part of `type`, for programs."""

    model_config = ConfigDict(extra="allow")

    type: str
    title: str
    status: int
    code: str
    detail: str
    hint: str
    errors: tuple[FieldError, ...] | None = None
    limit: int | None = None


class Problem(Exception):
    """An error that is answered as problem details."""

    def __init__(
        self,
        status: int,
        code: str,
        title: str,
        detail: str,
        hint: str,
        *,
        headers: Mapping[str, str] | None = None,
        errors: tuple[FieldError, ...] | None = None,
        limit: int | None = None,
    ) -> None:
        super().__init__(detail)
        self.headers = dict(headers or {})
        texts = {"type": TYPE_PREFIX + code, "title": title, "detail": detail, "hint": hint}
        self.body = ProblemDetails(**texts, status=status, code=code, errors=errors, limit=limit)

    def to_response(self) -> JSONResponse:
        """The error as an HTTP answer."""
        body = self.body.model_dump(mode="json", exclude_none=True)
        return JSONResponse(body, self.body.status, self.headers, MEDIA_TYPE)


def unauthorized(detail: str, hint: str) -> Problem:
    """401: the caller is not known."""
    headers = {"WWW-Authenticate": 'Bearer realm="bulkhead"'}
    return Problem(401, "unauthorized", "Authentication failed", detail, hint, headers=headers)


def forbidden(role: str, action: str, needed: str) -> Problem:
    """403: the caller is known and not allowed to do this."""
    detail, hint = f"the role {role} may not {action}", f"ask a person with the role {needed}, or use a key that has it"
    return Problem(403, "forbidden", "Your role does not allow this", detail, hint)


def key_reused(detail: str) -> Problem:
    """422: the key stands for another request."""
    hint = "use a new key, or repeat the first request unchanged"
    return Problem(422, "idempotency_reused", "The Idempotency-Key was used for another request", detail, hint)


def not_found(what: str, name: str, hint: str) -> Problem:
    """404: it is not there, or belongs to another tenant, which looks the same to the caller."""
    return Problem(404, "not_found", f"No such {what}", f"there is no {what} {name[:80]!r} in your tenant", hint)


def already_ended(status: str, hint: str) -> Problem:
    """409: nothing can be changed about a task that has ended."""
    return Problem(409, "already_ended", "The task has ended", f"the task has ended: {status}", hint)


def invalid_query(field: str, value: str, hint: str, limit: int | None = None) -> Problem:
    """422: a parameter of the query."""
    return Problem(422, "invalid_query", f"{field} does not fit", f"{field} is {value[:20]!r}", hint, limit=limit)


def too_many(code: str, title: str, detail: str, hint: str, *, retry_after_s: int, limit: int) -> Problem:
    """429 with the limit, and the time after which a repeat may succeed."""
    return Problem(429, code, title, detail, hint, headers={"Retry-After": str(retry_after_s)}, limit=limit)


def too_large(what: str, limit: int, unit: str, hint: str) -> Problem:
    """413 with the limit."""
    return Problem(413, "too_large", "Too large", f"{what} is larger than {limit} {unit}", hint, limit=limit)


def unavailable(detail: str, hint: str = "nothing was lost; ask again in a moment") -> Problem:
    """503: a component that this depends on does not answer."""
    return Problem(503, "unavailable", "Not available now", detail, hint, headers={"Retry-After": "2"})


def not_stored(error: BusError) -> Problem:
    """503: the broker refused a write, or did not confirm it."""
    if isinstance(error, PublishRefused):
        detail = f"the message broker refused to store it: {error}"
        return unavailable(
            detail, "the operator must look (`bulkhead doctor`): a full disk, a limit or a missing right"
        )
    return unavailable(
        f"the message broker does not answer: {error}",
        "nothing that was acknowledged is lost; repeat it, under the same Idempotency-Key if it has one, and it counts "
        "once. If it goes on, the operator must look (`bulkhead doctor`): a full disk stops the broker",
    )
