"""Arguments of a call that a plan makes: literals stay, references stand for fields of earlier results."""

import json

import pytest

from bulkhead.flow.step_calls import Reference, follows_call, list_references, resolve_arguments
from bulkhead_contracts import bounds
from bulkhead_contracts.plan import StepCall
from bulkhead_contracts.result import Failure

TEMPLATE = {
    "to": {"$from": "find", "field": "/people/0/mail"},
    "body": {"$from": "write"},
    "lines": [{"name": "fixed", "amount": {"$item": "/amount"}}],
}
INPUTS = {
    "find": '{"people": [{"mail": "a@b.example"}], "a/b": {"~": 1}}',
    "write": "Dear all,",
    "half": r'{"a": "\ud800"}',
}


def call_of(arguments: object) -> StepCall:
    return StepCall(tool="send", arguments_json=json.dumps(arguments))


def test_references_stand_for_fields_of_results_and_of_the_item():
    arguments = resolve_arguments(call_of(TEMPLATE), INPUTS, {"amount": 7})
    assert arguments == {"to": "a@b.example", "body": "Dear all,", "lines": [{"name": "fixed", "amount": 7}]}
    assert list_references(call_of(TEMPLATE)) == (
        Reference("/to", "find", "/people/0/mail"),
        Reference("/body", "write", ""),
        Reference("/lines/0/amount", "", "/amount"),
    )


@pytest.mark.parametrize(
    ("text", "field", "value"),
    [
        (INPUTS["find"], "/a~1b/~0", 1),
        ('["x", {"y": null}]', "/1/y", None),
        ('["x"]', "", ["x"]),
        ('```json\n{"a": 1}\n```\n[#0123456789ab]', "/a", 1),
        ("42", "", "42"),
        ('"quoted"', "", '"quoted"'),
        ("[" * 100, "", "[" * 100),
    ],
)
def test_a_whole_result_is_its_json_where_that_is_an_object_or_a_list(text: str, field: str, value: object):
    call = call_of({"value": {"$from": "step", "field": field}})
    assert resolve_arguments(call, {"step": text}) == {"value": value}


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        ({"to": {"$from": "nowhere"}}, "unknown_input"),
        ({"to": {"$from": "find", "field": "/people/1"}}, "no_such_field"),
        ({"to": {"$from": "find", "field": "/people/mail"}}, "no_such_field"),
        ({"to": {"$from": "find", "field": "/people/²"}}, "no_such_field"),
        ({"to": {"$from": "write", "field": "/mail"}}, "no_such_field"),
        ({"to": {"$item": ""}}, "no_item"),
        ({"to": {"$from": "half", "field": "/a"}}, "bad_arguments"),
        ({"k" * 201: {"$from": "find"}}, "malformed_arguments"),
        ({"to": {"$from": "find", "else": 1}}, "malformed_arguments"),
        ({"to": {"$from": ["find"]}}, "malformed_arguments"),
        ({"to": {"$from": "find", "field": "mail"}}, "malformed_arguments"),
        ({"$from": "find"}, "malformed_arguments"),
        (["find"], "malformed_arguments"),
        ([{"$from": "find"}] * 3, "malformed_arguments"),
        ({"all": [{"$from": "find"}] * 65}, "malformed_arguments"),
    ],
)
def test_a_reference_that_stands_for_nothing_is_told_with_its_place(arguments: object, code: str):
    failure = resolve_arguments(call_of(arguments), INPUTS)
    assert isinstance(failure, Failure) and failure.code == code and failure.hint and "send" in failure.message


def test_arguments_are_bounded():
    half = "x" * (bounds.MAX_ARGUMENTS_BYTES * 2 // 3)
    for arguments, text in (({"a": {"$from": "s"}}, half * 2), ({k: {"$from": "s"} for k in "ab"}, half)):
        failure = resolve_arguments(call_of(arguments), {"s": text})
        assert isinstance(failure, Failure) and failure.code == "arguments_too_long"


def test_arguments_follow_their_call_where_each_literal_stands_at_its_place():
    call, arguments = call_of(TEMPLATE), resolve_arguments(call_of(TEMPLATE), INPUTS, {"amount": 7})
    assert isinstance(arguments, dict) and follows_call(call, arguments)
    assert follows_call(call, {**arguments, "to": "anything"})
    assert not follows_call(call, {**arguments, "cc": "e@evil.example"})
    assert not follows_call(call, {**arguments, "lines": [{"name": "other", "amount": 7}]})
    assert not follows_call(call, {"to": "a@b.example"})
    assert not follows_call(call_of({"n": 1}), {"n": True})
