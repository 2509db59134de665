"""A check of message bodies against the contracts' bounds, as far as the detectors read them.

In: the body of a message, as JSON. Out: yes or no. The watch reads bodies without their models, and what it does with
one grows with its texts and lists: a compromised service could hold it up for a while with one message that its
receiver rejects at a glance.
"""

from collections.abc import Mapping

from bulkhead_contracts import bounds

_NAMES = (
    "call_id",
    "step_id",
    "id",
    "ask_id",
    "wait_id",
    "lease_id",
    "task",
    "target",
    "tool",
    "role",
    "code",
    "thread",
)
_TEXTS = {
    **dict.fromkeys((*_NAMES, "outcome", "mode"), bounds.MAX_NAME_CHARS),
    **dict.fromkeys(("model", "pinned", "provider", "fingerprint"), bounds.MAX_SUMMARY_CHARS),
    "resource": bounds.MAX_RESOURCE_NAME_CHARS,
    "arguments_json": bounds.MAX_ARGUMENTS_BYTES,
    "query": bounds.MAX_QUERY_CHARS,
    **dict.fromkeys(("question", "message"), bounds.MAX_REASON_CHARS),
    "text": bounds.MAX_PEER_ANSWER_CHARS,
}
_LISTS = {
    "targets": bounds.MAX_ASKED_STEPS,
    "passages": bounds.MAX_PASSAGES,
    "steps": bounds.MAX_PLAN_STEPS,
    "inputs": bounds.MAX_STEP_INPUTS,
    "messages": bounds.MAX_CONVERSATION,
    "acts": bounds.MAX_CALLS_PER_TURN,
    "more_acts": bounds.MAX_MORE_ACTS,
    "tool_calls": bounds.MAX_CALLS_PER_TURN,
}
_PARTS = frozenset({"failure", "step", "steps", "plan", "adopted", "conversation", "acts", "more_acts", "tool_calls"})
"""What is looked into."""


def is_within_bounds(body: Mapping[str, object]) -> bool:
    """Texts and lists that the watch reads are no longer than they may be, and texts are texts."""
    for name, value in body.items():
        if name in _TEXTS:
            if isinstance(value, dict | list) or (isinstance(value, str) and len(value) > _TEXTS[name]):
                return False
        elif isinstance(value, list):
            if name in _LISTS and not _is_list_within_bounds(name, value):
                return False
        elif name in _PARTS and isinstance(value, dict) and not is_within_bounds(value):
            return False
    return True


def _is_list_within_bounds(field: str, value: list[object]) -> bool:
    if len(value) > _LISTS[field]:
        return False
    if field in _PARTS:
        return all(is_within_bounds(part) for part in value if isinstance(part, dict))
    return all(len(name) <= bounds.MAX_NAME_CHARS for name in value if isinstance(name, str))
