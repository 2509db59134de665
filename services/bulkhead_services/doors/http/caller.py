"""The caller of a request, from its headers.

In: a claim that was checked, and headers. Out: a Caller, or a DoorRefusal (400, 404) that names the
header.
"""

import re
from collections.abc import Iterable, Mapping
from dataclasses import replace
from decimal import Decimal

from bulkhead.callers.authentication import Unauthenticated, credential_of, repeated_header
from bulkhead.callers.step_keys import PREFIX, StepKey, StepKeys
from bulkhead_contracts import bounds
from bulkhead_contracts.task import RequesterClaim
from bulkhead_services.doors.forms.fields import unfit_field
from bulkhead_services.doors.port import Caller, DoorRefusal

MAX_RUN_CHARS = 200
MAX_KEY_CHARS = 255
_TASK = re.compile(r"doors-[A-Za-z0-9_-]{1,58}")
_AGENT = re.compile(r"[a-z][a-z0-9_]{0,31}")
_TAG = re.compile(r"[A-Za-z0-9_.-]{0,64}")
_NUMBER = re.compile(r"(?=.{1,32}$)[0-9]*\.?[0-9]+(?:[eE][+-]?[0-9]+)?")
_TRACE = re.compile(r"[0-9a-f]{2}-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2}(-.*)?")


def check_once(names: Iterable[str]) -> None:
    """Names of a request's headers. Raises DoorRefusal for one of the doors' own that is there twice."""
    if name := repeated_header(names):
        raise unfit_field(name.title(), "is there twice", "send it once")


def caller_of(headers: Mapping[str, str], claim: RequesterClaim, token: str) -> Caller:
    """The caller. Raises DoorRefusal."""
    task = headers.get("x-bulkhead-task", "")
    return Caller(
        claim=claim,
        token=token,
        run=_bounded_header(headers, "X-Bulkhead-Run", MAX_RUN_CHARS),
        task=parse_task_id(task) if task else "",
        retry=_is_retry(headers.get("x-stainless-retry-count", "")),
        idempotency_key=_bounded_header(headers, "Idempotency-Key", MAX_KEY_CHARS),
        agent=_matched_header(headers, "X-Bulkhead-Agent", _AGENT, "a to z, 0 to 9 and _, a letter first, at most 32")
        or "outside",
        feature=_matched_header(headers, "X-Bulkhead-Feature", _TAG, "A-Z a-z 0-9 _ . -, at most 64"),
        workflow=_matched_header(headers, "X-Bulkhead-Workflow", _TAG, "A-Z a-z 0-9 _ . -, at most 64"),
        limit_usd_micros=_number_header(headers, "X-Bulkhead-Limit-Usd", 1_000_000, bounds.MAX_COST_USD_MICROS),
        limit_tokens=_number_header(headers, "X-Bulkhead-Limit-Tokens", 1, bounds.MAX_TOKENS),
        deadline_ms=_number_header(headers, "X-Bulkhead-Deadline-S", 1_000, bounds.MAX_TASK_DEADLINE_MS),
        traceparent=_valid_traceparent(headers.get("traceparent", "")),
        notes=_is_on(headers, "X-Bulkhead-Notes"),
    )


def step_of(headers: Mapping[str, str], keys: StepKeys) -> StepKey | None:
    """The step whose key a request comes with; None for any other credential. Raises Unauthenticated."""
    credential = credential_of(headers)
    if not credential.startswith(PREFIX):
        return None
    if (step := keys.parse_key(credential)) is None:
        raise Unauthenticated("this is no key of a step", "send the `key` that came with the step")
    return step


def holder_of(headers: Mapping[str, str], step: StepKey) -> Caller:
    """The holder of a step; its task is the step's, whatever a header names. Raises DoorRefusal."""
    other_headers = {name: value for name, value in headers.items() if name.lower() != "x-bulkhead-task"}
    claim = RequesterClaim(tenant=step.tenant, person=step.identity, role="submitter", via="api_key")
    return replace(caller_of(other_headers, claim, ""), step=step)


def parse_task_id(text: str) -> str:
    """The id of a run. Raises DoorRefusal 404, as for one that is not there."""
    if not _TASK.fullmatch(text):
        message = f"there is no run {text[: bounds.MAX_NAME_CHARS]!r} in your tenant"
        raise DoorRefusal(
            404, "no_such_run", message, "send the X-Bulkhead-Task of an answer, or none for a run of its own"
        )
    return text


def _is_retry(count: str) -> bool:
    return count.isascii() and count.isdigit() and count.strip("0") != ""


def _bounded_header(headers: Mapping[str, str], name: str, most: int) -> str:
    value = headers.get(name.lower(), "")
    if len(value) > most:
        raise unfit_field(name, f"must have at most {most} characters, and has {len(value)}")
    return value


def _matched_header(headers: Mapping[str, str], name: str, pattern: re.Pattern[str], allowed: str) -> str:
    value = headers.get(name.lower(), "")
    if value and not pattern.fullmatch(value):
        raise unfit_field(name, f"is {value[: bounds.MAX_NAME_CHARS]!r}", f"it is made of {allowed} characters")
    return value


def _is_on(headers: Mapping[str, str], name: str) -> bool:
    value = headers.get(name.lower(), "on")
    if value not in ("on", "off"):
        raise unfit_field(name, f"is {value[: bounds.MAX_NAME_CHARS]!r}", "send on or off")
    return value == "on"


def _number_header(headers: Mapping[str, str], name: str, units: int, most: int) -> int | None:
    text = headers.get(name.lower(), "")
    if not text:
        return None
    try:
        # Decimal reads more than others do: 1_000, digits of any script.
        value = Decimal(text) * units if _NUMBER.fullmatch(text) else Decimal(-1)
        # Compared first: 1e999999 as an integer would fill the memory.
        number = int(value) if 1 <= value <= most else 0
    except ArithmeticError:  # No number, or one beyond what a decimal holds.
        number = 0
    if not number:
        raise unfit_field(name, f"is {text[:32]!r}", f"send a number above 0, of at most {most // units}")
    return number


def _valid_traceparent(text: str) -> str:
    """A trace's context; "" where it does not fit the standard, which says to go on without it."""
    return text if len(text) <= bounds.MAX_SUMMARY_CHARS and _TRACE.fullmatch(text) else ""
