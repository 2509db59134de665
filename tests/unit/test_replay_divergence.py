"""Replay finds what differs: built on a recorded mini-run of the planner, then tampered with."""

import json
from dataclasses import replace as change

from bulkhead.bus.port import Stored
from bulkhead.runtime.fold import Fold, seal, step
from bulkhead.runtime.replay import replay
from bulkhead.testing.playbook import START_UNIX_MS, Playbook
from bulkhead_contracts import subjects
from bulkhead_contracts.model import ModelCallReplied
from bulkhead_contracts.result import Result
from bulkhead_contracts.task import TaskLimits, TaskSubmitted
from bulkhead_contracts.verdict import VerdictReached
from services.planner.core import Planner


def record() -> tuple[list[Stored], dict[str, str]]:
    """A journal of one task: what the planner heard and said."""
    play = Playbook(Planner())
    plan = json.dumps({"steps": [{"id": "a", "instruction": "do", "acceptance": "done"}]})
    play.hears(TaskSubmitted(objective=play.text("o", "gateway"), limits=TaskLimits(), submitted_unix_ms=START_UNIX_MS),
               sender="gateway", grant="")
    play.hears(ModelCallReplied(call_id="plan-1-1", outcome="answered", content=play.text(plan), prompt_id="p"),
               sender="model_gateway")
    play.hears(VerdictReached(step_id="a", attempt=1, plan_version=1, accepted=True, result=Result(summary="r")),
               sender="checker")
    journal, fold = [], Fold(state=None)
    for message in play.heard:
        journal.append(Stored(subjects.mesh(message.envelope.source, "planner", "demo", "t1"),
                              message.envelope.headers(), message.body.encode(), message.sequence, START_UNIX_MS))
        for index, output in enumerate(step(fold, message, {1: Planner()})):
            _, head = seal("planner", message, index, output, _Unsigned())
            if hasattr(output, "to"):
                journal.append(Stored(subjects.mesh("planner", output.to, "demo", "t1"), head.headers(),
                                      output.body.encode(), 900 + index, START_UNIX_MS))
    return journal, play.texts


class _Unsigned:
    def grant(self, claims, parent=""):
        import jwt

        return jwt.encode({"grant": claims.model_dump(mode="json"), **({"parent": parent} if parent else {})}, "k" * 32)


async def check(journal: list[Stored], texts: dict[str, str]):
    async def fetch(ref):
        return texts[ref.sha256]

    return await replay(journal, {"planner": {1: Planner()}}, fetch)


async def test_an_honest_record_replays():
    journal, texts = record()
    report = await check(journal, texts)
    assert report.divergences == [] and report.compared == 7 and report.ended


async def test_one_changed_byte_is_found_and_shown():
    journal, texts = record()
    at = next(i for i, one in enumerate(journal) if one.headers["ce-type"] == "mesh.task.ended.v1")
    journal[at] = change(journal[at], body=journal[at].body.replace(b'"succeeded"', b'"failed"'))
    report = await check(journal, texts)
    assert [one.what for one in report.divergences] == ["body"]
    assert "succeeded" in report.divergences[0].expected and "failed" in report.divergences[0].recorded


async def test_a_missing_an_added_and_a_widened_message_are_found():
    journal, texts = record()
    assigned = next(i for i, one in enumerate(journal) if one.headers["ce-type"] == "mesh.step.assigned.v1")
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
    at = next(i for i, one in enumerate(journal) if one.headers["ce-type"] == "mesh.task.ended.v1")
    second = change(journal[at], body=journal[at].body + b" ")
    assert "a second message under one id" in [one.what for one in (await check([*journal, second], texts)).divergences]
    call = next(i for i, one in enumerate(journal) if one.headers["ce-type"] == "mesh.model.call_requested.v1")
    journal[call] = change(journal[call], headers={**journal[call].headers, "ce-grantdigest": "f" * 32})
    journal[0] = change(journal[0], headers={**journal[0].headers, "bulkhead-grant": "another"})
    first = next(iter((await check(journal, texts)).divergences))
    assert first.what.startswith("header")
