"""Replay finds what differs: built on a recorded mini-run of the planner, then tampered with."""

import json
from dataclasses import replace as change

import pytest

from bulkhead.blobs import BlobMissing
from bulkhead.bus.port import StoredMessage
from bulkhead.runtime.decider.fold import TaskFold, fold_message, seal
from bulkhead.runtime.decider.replay import CannotReplay, replay_deciders
from bulkhead_contracts import subjects
from bulkhead_contracts.control import MessageRejected
from bulkhead_contracts.envelope import derive_id
from bulkhead_contracts.model import ModelCallReplied
from bulkhead_contracts.result import Result
from bulkhead_contracts.task import TaskLimits, TaskSubmitted
from bulkhead_contracts.types import Body
from bulkhead_contracts.verdict import VerdictReached
from bulkhead_services.planner.core import Planner
from tests.playbook import START_UNIX_MS, Playbook


def stored(sender: str, to: str, headers: dict[str, str], body: Body, sequence: int) -> StoredMessage:
    """A message of the task, as the journal has it."""
    subject = subjects.mesh_subject(sender, to, "demo", "t1")
    return StoredMessage(subject, headers, body.encode(), sequence, START_UNIX_MS)


def place_of(journal: list[StoredMessage], kind: str) -> int:
    """Where the first message of a type stands."""
    return next(number for number, one in enumerate(journal) if one.ce_type == kind)


def record() -> tuple[list[StoredMessage], dict[str, str]]:
    """A journal of one task: what the planner heard and said."""
    play = Playbook(Planner())
    plan = json.dumps({"steps": [{"id": "a", "instruction": "do", "acceptance": "done"}]})
    play.hears(
        TaskSubmitted(objective=play.add_content("o", "gateway"), limits=TaskLimits(), submitted_unix_ms=START_UNIX_MS),
        sender="gateway",
        grant="",
    )
    play.hears(
        ModelCallReplied(call_id="plan-1-1", outcome="answered", content=play.add_content(plan), prompt_id="p"),
        sender="model_gateway",
    )
    play.hears(
        VerdictReached(step_id="a", attempt=1, plan_version=1, accepted=True, result=Result(summary="r")),
        sender="checker",
    )
    journal, fold = [], TaskFold(state=None)
    for message in play.heard:
        head = message.envelope
        journal.append(stored(head.source, "planner", head.to_headers(), message.body, message.sequence))
        for index, output in enumerate(fold_message(fold, message, {1: Planner()})):
            _, head = seal("planner", message, index, output, _Unsigned())
            if hasattr(output, "to"):
                journal.append(stored("planner", output.to, head.to_headers(), output.body, 900 + index))
    return journal, play.texts


class _Unsigned:
    def sign_grant(self, claims, parent=""):
        import jwt

        return jwt.encode({"grant": claims.model_dump(mode="json"), **({"parent": parent} if parent else {})}, "k" * 32)


async def check(journal: list[StoredMessage], texts: dict[str, str]):
    async def fetch(ref):
        return texts[ref.sha256]

    return await replay_deciders(journal, {"planner": {1: Planner()}}, fetch)


async def test_an_honest_record_replays():
    journal, texts = record()
    report = await check(journal, texts)
    assert report.divergences == [] and report.compared == 5 and report.ended


async def test_one_changed_byte_is_found_and_shown():
    journal, texts = record()
    at = place_of(journal, "mesh.task.ended.v1")
    journal[at] = change(journal[at], body=journal[at].body.replace(b'"succeeded"', b'"failed"'))
    report = await check(journal, texts)
    assert [one.what for one in report.divergences] == ["body"]
    assert "succeeded" in report.divergences[0].expected and "failed" in report.divergences[0].recorded


async def test_a_missing_an_added_and_a_widened_message_are_found():
    journal, texts = record()
    assigned = place_of(journal, "mesh.step.assigned.v1")
    missing = [one for i, one in enumerate(journal) if i != assigned]
    assert "not in the record" in [one.what for one in (await check(missing, texts)).divergences]
    extra = change(journal[assigned], headers={**journal[assigned].headers, "ce-id": "e" * 32})
    found = [one.what for one in (await check([*journal, extra], texts)).divergences]
    assert found == ["recorded, but the fold does not say it"]
    import jwt

    token = journal[assigned].headers["bulkhead-grant"]
    claims = jwt.decode(token, options={"verify_signature": False})
    claims["grant"]["tools"] = ["everything"]
    headers = {**journal[assigned].headers, "bulkhead-grant": jwt.encode(claims, "k" * 32)}
    wide = change(journal[assigned], headers=headers)
    journal[assigned] = wide
    assert [one.what for one in (await check(journal, texts)).divergences] == ["step grant"]


async def test_a_second_body_under_one_id_and_another_grant_are_found():
    journal, texts = record()
    at = place_of(journal, "mesh.task.ended.v1")
    second = change(journal[at], body=journal[at].body + b" ")
    assert "a second message under one id" in [one.what for one in (await check([*journal, second], texts)).divergences]
    call = place_of(journal, "mesh.model.call_requested.v1")
    journal[call] = change(journal[call], headers={**journal[call].headers, "ce-grantdigest": "f" * 32})
    journal[0] = change(journal[0], headers={**journal[0].headers, "bulkhead-grant": "another"})
    first = next(iter((await check(journal, texts)).divergences))
    assert first.what.startswith("header")


async def test_what_was_said_to_somebody_else_is_found():
    journal, texts = record()
    at = place_of(journal, "mesh.task.ended.v1")
    journal[at] = change(journal[at], subject=subjects.mesh_subject("planner", "budget", "demo", "t1"))
    [found] = (await check(journal, texts)).divergences
    assert found.what == "subject" and ".gateway." in found.expected and ".budget." in found.recorded


async def test_an_outsider_who_names_a_decider_as_source_is_not_taken_for_it():
    journal, texts = record()
    forged = change(
        journal[1],
        subject=subjects.mesh_subject("pub_demo", "gateway", "demo", "t1"),
        headers={**journal[1].headers, "ce-id": "f" * 32, "ce-source": "planner"},
    )
    assert (await check([*journal, forged], texts)).divergences == []


async def test_a_record_without_its_beginning_gives_no_verdict():
    journal, texts = record()
    with pytest.raises(CannotReplay, match="lost its beginning") as told:
        await check(journal[1:], texts)
    assert told.value.expired and told.value.hint


async def test_a_content_that_is_gone_gives_no_verdict():
    journal, _ = record()

    async def fetch(ref):
        raise BlobMissing("no content")

    with pytest.raises(CannotReplay, match="is gone") as told:
        await replay_deciders(journal, {"planner": {1: Planner()}}, fetch)
    assert told.value.expired


async def test_a_rejected_message_is_skipped_also_when_its_content_is_gone():
    journal, texts = record()
    at = place_of(journal, ModelCallReplied.ce_type())
    answered = await check(journal, texts)
    fact = MessageRejected(sequence=journal[at].sequence, code="content_missing", reason="gone", dead_letter_id="d")
    head = {**journal[at].headers, "ce-type": fact.ce_type(), "ce-source": "planner", "ce-id": "d" * 32}
    rejection = stored("planner", "planner", head, fact, 99)

    async def fetch(ref):
        raise BlobMissing("no content")

    report = await replay_deciders([*journal, rejection], {"planner": {1: Planner()}}, fetch)
    assert report.decisions == answered.decisions, "one fewer, and the fact itself"
    assert "recorded, but the fold does not say it" in {one.what for one in report.divergences}


async def test_another_logic_than_there_is_gives_no_verdict():
    journal, texts = record()
    newer = [change(one, headers={**one.headers, "ce-logicversion": "7"}) for one in journal]
    with pytest.raises(CannotReplay, match="under logic 7; this program has planner logic 1") as told:
        await check(newer, texts)
    assert not told.value.expired


async def test_the_end_that_follows_a_rejected_opening_is_expected():
    opening = StoredMessage(
        subjects.mesh_subject("gateway", "planner", "demo", "t1"),
        {
            "ce-id": "a" * 32,
            "ce-type": TaskSubmitted.ce_type(),
            "ce-source": "gateway",
            "ce-time": "2026-01-01T00:00:00.000Z",
        },
        b"{}",
        1,
        START_UNIX_MS,
    )
    fact = MessageRejected(sequence=1, code="malformed_body", reason="no objective", dead_letter_id="d")
    head = {"ce-id": "b" * 32, "ce-type": fact.ce_type(), "ce-source": "planner", "ce-time": opening.headers["ce-time"]}
    rejection = stored("planner", "planner", head, fact, 2)
    [said] = Planner().reject_opening(fact.code, fact.reason)
    end = {
        "ce-id": derive_id("planner", "a" * 32, "unopened/0"),
        "ce-type": said.body.ce_type(),
        "ce-cause": "",
        "ce-source": "planner",
        "ce-specversion": "1.0",
        "content-type": "application/json",
        "ce-causeid": "a" * 32,
        "ce-logicversion": "1",
        "ce-time": opening.headers["ce-time"],
    }
    ended = stored("planner", "gateway", end, said.body, 3)
    honest = await check([opening, rejection, ended], {})
    assert honest.divergences == [] and honest.compared == 1
    other = change(ended, body=ended.body.replace(b"no objective", b"whatever"))
    assert [one.what for one in (await check([opening, rejection, other], {})).divergences] == ["body"]
