"""Values of a request, read and checked: keys, bodies, ids, positions, pages.

In: a request. Out: plain values, or a Problem that names what does not fit.
"""

import base64
import binascii
import json
import re
from collections import Counter
from typing import TypeVar

from pydantic import ValidationError
from starlette.requests import Request
from starlette.responses import Response

from bulkhead.text.validation_errors import find_misfits
from bulkhead_contracts import bounds, subjects
from bulkhead_contracts.task import RequesterClaim
from bulkhead_contracts.types import Contract, list_unknown_nested_fields
from bulkhead_services.gateway.problems import FieldError, Problem, not_found, too_large
from bulkhead_services.gateway.read_model.events import BadEventId, StreamPosition, parse_position
from bulkhead_services.gateway.read_model.feeds import InboxFeed, InboxFeeds

MAX_KEY_CHARS = 255
MAX_NAMED_ERRORS = 20
MAX_SEQUENCE = 2**53
"""As contracts count."""
_OF_A_STEP = re.compile(r"plan\.steps\.(\d+)(?:\.|$)")

M = TypeVar("M", bound=Contract)


def json_response(body: Contract | bytes, status: int = 200, headers: dict[str, str] | None = None) -> Response:
    """A JSON answer: for who asked, and for no cache on the way."""
    headers = {"Cache-Control": "no-store", **(headers or {})}
    content = body if isinstance(body, bytes) else body.model_dump_json(exclude_none=False)
    return Response(content, status, headers, "application/json")


def idempotency_key(request: Request, *, required: bool) -> str:
    """The header's value; "" when it may be absent and is. Raises Problem 400."""
    key = request.headers.get("idempotency-key", "")
    if not key and not required:
        return ""
    if not key or len(key) > MAX_KEY_CHARS:
        raise Problem(
            400,
            "idempotency_key",
            "Idempotency-Key is missing or too long",
            f"the header Idempotency-Key must have 1 to {MAX_KEY_CHARS} characters",
            "send a fresh random value (a UUID) with every new request and the same one when you "
            "repeat it; then a repeat is never a second task",
            limit=MAX_KEY_CHARS,
        )
    return key


def parse_body(model: type[M], raw: bytes) -> M:
    """The body as its model. Raises Problem 400, 413, 422."""
    document, name = _load_body(raw)
    if name:
        detail, hint = f"an object of the body holds the key {name[:64]!r} twice", "send each key once"
        raise Problem(400, "repeated_key", "A key is there twice", detail, hint)
    try:
        body = model.model_validate_json(raw)
        if unknown := next(list_unknown_nested_fields(model, document), ""):
            hint = "correct the name, or leave the field out; /openapi.json has the whole schema"
            raise Problem(422, "invalid_body", "The body does not fit", unknown[:500], hint)
        return body
    except ValidationError as error:
        problems, unfit = error.errors(include_url=False, include_input=False), find_misfits(error, model)
    for problem in problems:
        if problem["type"] == "string_too_long" and problem["loc"] == ("objective",):
            hint = "shorten it; long material belongs in documents (POST /v1/documents)"
            raise too_large("the objective", bounds.MAX_OBJECTIVE_CHARS, "characters", hint)
    if problems[0]["type"] == "json_invalid":
        hint = "send a JSON object with content-type application/json"
        raise Problem(400, "malformed_json", "The body is not JSON", problems[0]["msg"], hint)
    errors = tuple(FieldError(field=misfit.where or "body", message=misfit.what) for misfit in unfit[:MAX_NAMED_ERRORS])
    named = ", ".join(f"{item.field}{_step_label(raw, item.field)}: {item.message}" for item in errors[:3])
    fields = ", ".join(next((misfit.known for misfit in unfit if misfit.known), tuple(model.model_fields)))
    hint = f"known fields are {fields}; /openapi.json has the whole schema"
    raise Problem(422, "invalid_body", "The body does not fit", named[:500], hint, errors=errors)


def _load_body(raw: bytes) -> tuple[object, str]:
    """The body, None for what is no JSON; and the first key that an object of it holds twice, "" for none."""
    repeated = ""

    def build_object(rows: list[tuple[str, object]]) -> dict[str, object]:
        nonlocal repeated
        fields = dict(rows)
        if len(fields) != len(rows) and not repeated:
            repeated = next(name for name, count in Counter(name for name, _ in rows).items() if count > 1)
        return fields

    try:
        document = json.loads(raw, object_pairs_hook=build_object)
    except (ValueError, RecursionError):
        return None, ""
    return document, repeated


def _step_label(raw: bytes, field: str) -> str:
    """` (step pay)` for a field of a step that has an id: people know their steps by name."""
    match = _OF_A_STEP.match(field)
    try:
        name = json.loads(raw)["plan"]["steps"][int(match[1])]["id"] if match else ""
    except (ValueError, LookupError, TypeError, RecursionError):
        return ""
    return f" (step {name[: bounds.MAX_NAME_CHARS]})" if isinstance(name, str) and name else ""


def check_id(value: str, what: str) -> str:
    """An id from a path. Raises Problem 404."""
    try:
        return subjects.check_token(value)
    except subjects.SubjectError as error:
        raise not_found(what, value, "ids are made of A-Z a-z 0-9 _ - only") from error


async def existing_task(task_id: str, feeds: InboxFeeds, claim: RequesterClaim) -> InboxFeed:
    """The task in the caller's tenant; another tenant's is not found. Raises Problem 404."""
    task = check_id(task_id, "task")
    feed = await feeds.fresh_feed(claim.tenant, task)
    if feed.view.status == "unknown":
        raise not_found("task", task, "check the id; GET /v1/tasks lists your tenant's tasks")
    return feed


def position_of(request: Request) -> StreamPosition:
    """The client's position in a stream of events. Raises Problem 400."""
    event_id = request.headers.get("last-event-id") or request.query_params.get("last_event_id", "")
    if not event_id:
        return StreamPosition()
    try:
        return parse_position(event_id)
    except BadEventId as error:
        hint = "send the last `id:` that you received, or none to start at the beginning"
        raise Problem(400, "bad_event_id", "Last-Event-ID is not valid", str(error), hint) from error


def to_cursor(sequence: int) -> str:
    """An opaque cursor."""
    return base64.urlsafe_b64encode(sequence.to_bytes(8, "big")).rstrip(b"=").decode()


def cursor_of(text: str) -> int:
    """The query's `cursor`; 0 for none. Raises Problem 422."""
    if not text:
        return 0
    try:
        raw = base64.b64decode(text + "=" * (-len(text) % 4), altchars=b"-_", validate=True)
        sequence = int.from_bytes(raw, "big")
        if len(raw) != 8 or not text.isascii() or sequence > MAX_SEQUENCE:
            raise ValueError("no position")
        return sequence
    except (ValueError, binascii.Error) as error:
        detail = "this gateway did not make the cursor"
        hint = "send the `next` of the previous page, or none for the first page"
        raise Problem(422, "invalid_query", "cursor does not fit", detail, hint) from error
