"""Bodies and grants for tests that name only what matters to them; the rest is valid and means nothing."""

from typing import Any, TypeVar

from bulkhead_contracts.budget import Amount
from bulkhead_contracts.task import TaskLimits
from bulkhead_contracts.types import Contract

T = TypeVar("T", bound=Contract)
REST: dict[str, Any] = {
    "actor": "ann",
    "amount": Amount(tokens=100),
    "arguments_json": "{}",
    "attempt": 1,
    "call_id": "c",
    "day_cost_usd_micros": 10**9,
    "day_tokens": 10**9,
    "document_scopes": (),
    "expires_unix_ms": 2**50,
    "limits": TaskLimits(),
    "plan_version": 1,
    "reserved_unix_ms": 1,
    "resource": "x",
    "service": "rag",
    "step_id": "s1",
    "task": "t1",
    "tenant": "demo",
    "tools": (),
}


def sample(kind: type[T], **fields: Any) -> T:
    """An instance with these fields, and every other one that it must have out of REST."""
    rest = {name: REST[name] for name, field in kind.model_fields.items() if field.is_required() and name in REST}
    return kind(**rest | fields)
