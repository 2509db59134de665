"""The values that an event gives a run, and what is no trigger."""

import pytest

from bulkhead.workflows.triggers import describe_trigger_misfit, read_trigger_values
from bulkhead_contracts.workflow import WorkflowTrigger

TRIGGER = WorkflowTrigger(event="order.paid", sources=("shop",), parameters={"market": "tea"})


@pytest.mark.parametrize(
    ("pointer", "text"),
    [("/id", "42"), ("/price", "1.5"), ("/paid", "true"), ("/who/name", "Ann"), ("/lines/1", "b"), ("/a~1b", "x")],
)
def test_a_value_is_read_by_its_pointer_as_text(pointer: str, text: str) -> None:
    body = '{"id": 42, "price": 1.5, "paid": true, "who": {"name": "Ann"}, "lines": ["a", "b"], "a/b": "x"}'
    trigger = TRIGGER.model_copy(update={"fields": {"value": pointer}})
    assert read_trigger_values(trigger, body) == {"market": "tea", "value": text}


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        ("{}", "nothing at /id"),
        ('{"id": null}', "is no text"),
        ('{"id": ["a"]}', "is no text"),
        ("7", "nothing at /id"),
        ("[" * 1_000, "nested deeper"),
    ],
)
def test_a_body_without_the_value_gives_none(body: str, reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        read_trigger_values(TRIGGER.model_copy(update={"fields": {"value": "/id"}}), body)


def test_a_trigger_is_bounded() -> None:
    large = {f"p{number}": "x" * 4_000 for number in range(5)}
    assert "takes" in describe_trigger_misfit(TRIGGER.model_copy(update={"parameters": large}))
    assert describe_trigger_misfit(TRIGGER) == ""
