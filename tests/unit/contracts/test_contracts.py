"""The contracts themselves: versions, bounds, subjects, envelope, and the words for a value that does not fit."""

import json
from pathlib import Path

import jsonschema_rs
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel, Field, ValidationError

from bulkhead_contracts import bounds, catalog, envelope, subjects
from bulkhead_contracts.catalog import DecodeError
from bulkhead_contracts.envelope import Envelope, EnvelopeError
from bulkhead_contracts.result import Completeness, Omission, merge_completeness, worst_standing
from bulkhead_contracts.step import StepAssigned
from bulkhead_contracts.task import TaskRequested
from bulkhead_contracts.wording import describe_error
from bulkhead_infra.render import asyncapi, schemas
from tests.paths import EXAMPLES, ROOT

TOKENS = st.from_regex(r"[A-Za-z0-9_-]{1,64}", fullmatch=True)


@given(TOKENS, TOKENS, TOKENS)
@pytest.mark.slow
def test_a_subject_parses_to_what_it_was_made_of(tenant, task, key):
    subject = subjects.mesh_subject("planner", "worker", tenant, task, key)
    address = subjects.parse(subject)
    assert (address.sender, address.receiver, address.tenant, address.task) == ("planner", "worker", tenant, task)
    assert address.key == key and str(address) == subject
    request = subjects.rpc_subject("planner", "worker", tenant, task)
    assert str(subjects.parse(request)) == request and subjects.parse(request).key == subjects.NO_KEY
    assert 0 <= address.partition < bounds.PARTITIONS


@pytest.mark.parametrize(
    "subject",
    [
        "mesh.a.b.0.t",
        f"mesh.a.b.{subjects.partition_of('k')}.t.k",
        f"mesh.a.b.{subjects.partition_of('k')}.t.k.",
        f"mesh.a.b.{subjects.partition_of('k')}.t.k.-.-",
        f"rpc.a.b.{subjects.partition_of('k')}.t.k.-",
        "mesh.a.b.x.t.k.-",
        "nope.a.b.0.t.k.-",
        "mesh.a.b.99.t.k.-",
        "mesh.a.*.0.t.k.-",
        "mesh.a.b.0..k.-",
        "",
        "mesh.a.b.².t.k.-",
        f"mesh.a.b.0{subjects.partition_of('k')}.t.k.-",
        f"mesh.a.b.{subjects.partition_of('k')}.t.k\n.-",
        f"mesh.a.b.{subjects.partition_of('k')}.t\n.k.-",
        "mesh.a.b.٣.t.k.-",
    ],
)
def test_subjects_that_lie_or_are_broken_are_refused(subject):
    with pytest.raises(subjects.SubjectError):
        subjects.parse(subject)


def test_a_wrong_partition_is_a_lie():
    right = subjects.partition_of("t1")
    with pytest.raises(subjects.SubjectError, match="partition"):
        subjects.parse(f"mesh.a.b.{(right + 1) % 32}.demo.t1.-")


def test_an_envelope_survives_its_headers():
    head = Envelope(
        id="0" * 32,
        type="mesh.task.requested.v2",
        source="gateway",
        time_unix_ms=1_700_000_000_123,
        cause="1" * 32,
        actor="ann",
        grant="g",
        grant_digest="d",
        approval="a",
        traceparent="00-1-2-01",
        logic=3,
    )
    assert envelope.parse(head.to_headers()) == head


@pytest.mark.parametrize(
    "change",
    [
        {"ce-id": ""},
        {"ce-type": ""},
        {"ce-source": ""},
        {"ce-time": "yesterday"},
        {"ce-logicversion": "x"},
        {"ce-actor": "x" * bounds.MAX_HEADER_BYTES},
        {"ce-id": "x" * 65},
    ],
)
def test_a_broken_envelope_says_what_is_wrong(change):
    head = Envelope(id="0" * 32, type="a.v1", source="b", time_unix_ms=0).to_headers()
    with pytest.raises(EnvelopeError):
        envelope.parse({**head, **change})


def test_ids_derive_from_emitter_cause_and_index():
    one = envelope.derive_id("planner", "c", 0)
    assert one == envelope.derive_id("planner", "c", 0)
    assert (
        len(
            {
                one,
                envelope.derive_id("worker", "c", 0),
                envelope.derive_id("planner", "c", 1),
                envelope.derive_id("planner", "d", 0),
            }
        )
        == 4
    )
    assert envelope.message_id(b"k" * 32, one) != envelope.message_id(b"l" * 32, one)


def test_version_one_is_read_as_version_two():
    body = catalog.decode_body("mesh.task.requested.v1", b'{"objective": "o", "limit_usd": 0.25, "deadline_s": 60}')
    assert isinstance(body, TaskRequested)
    assert (body.limits.cost_usd_micros, body.limits.deadline_ms) == (250_000, 60_000)
    assert (
        catalog.decode_body("mesh.task.requested.v1", b'{"objective": "o"}').limits
        == TaskRequested(objective="o").limits
    )


def test_a_request_is_written_in_its_first_order_though_it_inherits_its_options():
    body = TaskRequested(objective="o", feature="f", replan="none", voucher="v", constraints=("c",), conversation="n")
    assert " ".join(json.loads(body.encode())) == (
        "objective limits tools check plan requester payload_sha256 fork feature workflow delivery route replan "
        "voucher constraints conversation"
    )


@pytest.mark.parametrize(
    "kind, body, code, later",
    [
        ("mesh.nothing.known.v1", b"{}", "unknown_type", True),
        ("mesh.task.requested.v99", b"{}", "unknown_version", True),
        ("mesh.task.requested.vx", b"{}", "unknown_type", True),
        ("mesh.task.requested.v²", b"{}", "unknown_type", True),
        ("mesh.task.requested.v٢", b"{}", "unknown_type", True),
        ("mesh.task.requested.v" + "9" * 5_000, b"{}", "unknown_type", True),
        ("mesh.task.requested.v2", b"not json", "malformed_body", False),
        ("mesh.task.requested.v2", b"{}", "malformed_body", False),
        ("mesh.task.requested.v2", b'{"objective": ""}', "malformed_body", False),
        ("mesh.task.requested.v2", b" " * (bounds.MAX_MESSAGE_BYTES + 1), "oversize", False),
    ],
)
def test_what_cannot_be_read_says_why_and_whether_to_wait(kind, body, code, later):
    with pytest.raises(catalog.DecodeError) as caught:
        catalog.decode_body(kind, body)
    assert (caught.value.code, caught.value.later) == (code, later)


def test_readers_ignore_unknown_fields_and_writers_emit_none():
    body = catalog.decode_body("mesh.task.requested.v2", b'{"objective": "o", "future": {"x": 1}}')
    assert b"future" not in body.encode()


def test_the_catalog_is_held_to_the_grammar():
    outside = (catalog.PUBLISHER, catalog.SUBSCRIBER, catalog.OUTSIDE_WORKER)
    for row in catalog.ROWS:
        assert row.type.startswith("event." if row.plane == "events" else "mesh.") and row.owner
        for sender, receiver in row.edges:
            for name in (sender, receiver):
                assert name in (*catalog.EVERY_SERVICE, *outside, catalog.JOURNAL)
    assert len(catalog.BY_TYPE) == len(catalog.ROWS)


def test_publishers_may_say_requests_to_the_gateway_and_nothing_else():
    said = {
        (row.type, receiver) for row in catalog.ROWS for sender, receiver in row.edges if sender == catalog.PUBLISHER
    }
    words = ("task.requested", "task.cancel_requested", "approval.decide_requested", "event.published")
    assert said == {(f"mesh.{word}", "gateway") for word in words}
    assert catalog.is_allowed("mesh.task.requested.v2", "pub_demo", "gateway")
    assert not catalog.is_allowed("mesh.task.submitted.v1", "pub_demo", "planner")


def test_programs_outside_may_ask_doors_for_steps_and_nothing_else():
    said = [(row, edge) for row in catalog.ROWS for edge in row.edges if catalog.OUTSIDE_WORKER in edge]
    assert {(row.plane, *sorted(edge)) for row, edge in said} == {("rpc", "doors", catalog.OUTSIDE_WORKER)}
    assert catalog.is_allowed("mesh.step.take_requested.v1", "wrk_demo", "doors")
    assert not catalog.is_allowed("mesh.step.finished.v1", "wrk_demo", "planner")


def _examples() -> list[Path]:
    return sorted(EXAMPLES.glob("*.json"))


def test_every_message_version_has_an_example():
    assert {path.stem for path in _examples()} == {kind.ce_type() for kind in schemas.body_classes()}


@pytest.mark.parametrize("path", _examples(), ids=lambda path: path.stem)
def test_examples_fit_the_schema_and_are_read(path):
    schema = json.loads((ROOT / "contracts" / "schemas" / path.name).read_text())
    text = path.read_text()
    jsonschema_rs.validator_for(schema).validate(json.loads(text))
    catalog.decode_body(path.stem, text.encode())
    [kind] = [kind for kind in schemas.body_classes() if kind.ce_type() == path.stem]
    assert json.loads(kind.model_validate_json(text).encode()) == json.loads(text), "a writer emits exactly the schema"


def test_asyncapi_has_every_edge():
    document = asyncapi.asyncapi_document()
    assert len(document["channels"]) == len({(r.plane, *edge) for r in catalog.ROWS for edge in r.edges})
    assert len(document["operations"]) == 2 * sum(len(row.edges) for row in catalog.ROWS)


def test_what_is_missing_adds_up_and_the_worst_standing_wins():
    lost = Completeness.with_omissions(Omission(reason="pruned", what="a"))
    both = merge_completeness(Completeness(), lost, lost)
    assert not both.complete and len(both.omissions) == 1
    assert (
        worst_standing("ok", "degraded") == "degraded"
        and worst_standing("failed", "degraded") == "failed"
        and worst_standing() == "ok"
    )


LACKS = Completeness.with_omissions(Omission(reason="pruned", what="two passages"))


@pytest.mark.parametrize(("task", "partition"), [("task-1", 3), ("t1", 9), ("a", 15)])
def test_a_tasks_partition_is_a_number_that_stands(task, partition):
    """Everybody who publishes reckons it: another program, another language, the next version, every process."""
    assert subjects.partition_of(task) == partition


@pytest.mark.parametrize("parts", [(LACKS, Completeness()), (Completeness(), LACKS), (LACKS,), (LACKS, LACKS)])
def test_what_is_missing_from_any_part_is_missing_from_the_whole(parts):
    assert merge_completeness(*parts) == LACKS
    assert merge_completeness(Completeness(), Completeness()).complete and merge_completeness().complete


@pytest.mark.parametrize(
    ("kind", "context", "said"),
    [
        ("missing", {}, "Field required"),
        ("string_too_short", {"min_length": 1}, "String should have at least 1 character"),
        ("string_too_long", {"max_length": 64}, "String should have at most 64 characters"),
        ("string_pattern_mismatch", {"pattern": "^[a-z]{2}$"}, "String should match pattern '^[a-z]{2}$'"),
        (
            "too_long",
            {"field_type": "Tuple", "max_length": 8, "actual_length": 9},
            "Tuple should have at most 8 items after validation, not 9",
        ),
        ("literal_error", {"expected": "'a' or 'b'"}, "Input should be 'a' or 'b'"),
        ("greater_than_equal", {"ge": 0}, "Input should be greater than or equal to 0"),
        ("value_error", {"error": ValueError("it is {odd}")}, "Value error, it is {odd}"),
        ("json_invalid", {"error": "whatever a parser says"}, "Invalid JSON"),
        ("of_tomorrow", {"x": 1}, "Input does not fit (of_tomorrow)"),
        ("too_long", {}, "Input does not fit (too_long)"),
    ],
)
def test_a_problem_as_a_sentence(kind, context, said):
    assert describe_error({"type": kind, "ctx": context, "msg": "what the library says today"}) == said


@pytest.mark.parametrize("body", [b"{", b"", b"[1,", b"\xff"])
def test_no_parser_s_words_get_into_a_rejection(body):
    with pytest.raises(DecodeError) as refused:
        catalog.decode_body(StepAssigned.ce_type(), body)
    assert str(refused.value) == f"{StepAssigned.ce_type()}: body: Invalid JSON"


def test_types_that_contracts_use_have_words():
    class Odd(BaseModel):
        texts: tuple[str, ...] = Field(max_length=1)
        number: float = Field(gt=0, allow_inf_nan=False)

    with pytest.raises(ValidationError) as refused:
        Odd.model_validate_json('{"texts": ["a", "b"], "number": NaN}')
    said = [describe_error(one) for one in refused.value.errors()]
    assert said == ["Tuple should have at most 1 item after validation, not 2", "Input should be a finite number"]
