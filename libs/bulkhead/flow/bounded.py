"""JSON from models, read the same way on every machine: depth is bounded before the parser's stack is. Pure."""

import json

from bulkhead_contracts import bounds


def load_json(text: str, *, once: bool = False) -> object:
    """Read JSON as json.loads does. Raises ValueError for what is no JSON, or nests deeper than MAX_JSON_DEPTH;
    with `once` also for an object that holds a key twice, on which readers differ.

    json.loads gives up at a depth that depends on the caller's own stack, so two replicas could disagree.
    """
    depth = 0
    for char in text:
        if char in "[{":
            depth += 1
            if depth > bounds.MAX_JSON_DEPTH:
                raise ValueError(f"nested deeper than {bounds.MAX_JSON_DEPTH}")
        elif char in "]}":
            depth -= 1
    return json.loads(text, object_pairs_hook=_reject_duplicate_keys if once else None)


def _reject_duplicate_keys(pairs: list[tuple[str, object]]) -> dict[str, object]:
    if len(mapping := dict(pairs)) != len(pairs):
        raise ValueError("an object holds a key twice")
    return mapping
