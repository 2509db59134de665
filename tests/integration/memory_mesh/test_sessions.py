"""Sessions on a whole mesh: what a turn is shown, who may take part, what a summary costs, and what goes with it."""

import asyncio
import json
import re
from pathlib import Path
from typing import Any

import pytest

from bulkhead.blobs import reference
from bulkhead.client import Refused, SyncMesh
from bulkhead.client.session import Session
from bulkhead_cli.options import GatewayOptions
from bulkhead_cli.output import Exit, explain_refusal
from bulkhead_cli.target import GatewayTarget
from bulkhead_cli.tasks.chat import hold_conversation
from bulkhead_cli.tasks.sessions import list_sessions
from bulkhead_contracts.model import ModelCallReplied
from bulkhead_contracts.task import TaskSubmitted
from bulkhead_services.gateway.http.sessions.routes import SessionRoutes
from tests.replay.stage import OPERATOR, TENANT, Stage, call, silent, stage, use
from tests.unit.services.model_gateway.scripted_provider import says

FARES = "The fare to Graz is EUR 12. Book it under the name graz-line."
MARKER = reference("rag", FARES.encode()).marker
LONG = "word " * 300


def prompts_of(on: Stage, step: str = "answer") -> list[str]:
    """Texts that the worker of a step was shown, in order."""
    return [body["messages"][1]["content"] for role, asked, body in on.model.asked if (role, asked) == ("work", step)]


async def refusal_of(awaited: object) -> str:
    with pytest.raises(Refused) as refused:
        await awaited  # type: ignore[misc]
    return refused.value.code


@pytest.mark.slow
async def test_a_turn_is_shown_what_was_said_and_pinned(tmp_path: Path) -> None:
    async with stage(tmp_path) as on, on.client() as ann:
        on.model.will(answer=[says("Noted."), says("It is 4711."), says("Bye.")])
        session = ann.session(check=False, title="Numbers", feature="chat")
        assert (await session.ask("My number is 4711.")).status == "succeeded"
        assert (await session.pin("size", "Wears size 42.")).facts[0].text == "Wears size 42."
        assert (await session.ask("What is it?")).answer == "It is 4711."
        assert not (await session.unpin("size")).facts
        await session.ask("Thanks.")
        first, second, third = prompts_of(on)
        assert "kind=input" not in first and "Turn 1, the person: My number is 4711." in second
        assert "Wears size 42." in second and "Wears size 42." not in third and "the answer: It is 4711." in third
        shown = await session.show()
        assert [(turn.number, turn.answer, turn.status) for turn in shown.turns] == [
            (1, "Noted.", "succeeded"),
            (2, "It is 4711.", "succeeded"),
            (3, "Bye.", "succeeded"),
        ]
        task = await ann.task(shown.turns[1].task_id).show()
        assert (task["conversation"], task["feature"]) == (session.id, "chat")
        assert {row["task_id"] for row in await ann.tasks()} == {turn.task_id for turn in shown.turns}, "and no session"
        assert on.model.count("plan") == 0, "no planner model is asked"


@pytest.mark.slow
async def test_a_replaced_turn_is_shown_to_no_model_again_and_a_fork_goes_its_own_way(tmp_path: Path) -> None:
    async with stage(tmp_path) as on, on.client() as ann:
        on.model.will(answer=[says("Noted.")])
        session = ann.session(check=False)
        first = await session.say("My number is 4711.")
        await first.wait_until_ended(30)
        second = (await session.ask("I live in Graz.")).task_id
        fork = await session.fork_at(second)
        edited = await session.say("My number is 42.", replaces=first.id)
        await edited.wait_until_ended(30)
        await session.ask("What is it?")
        last = prompts_of(on)[-1]
        assert "42" in last and "4711" not in last and "Graz" not in last
        await fork.ask("Where do I live?")
        assert "Graz" in prompts_of(on)[-1] and "4711" in prompts_of(on)[-1]
        shown = await session.show()
        assert [(turn.number, turn.text) for turn in shown.turns] == [(1, "My number is 42."), (2, "What is it?")]
        assert [turn.text for turn in shown.turns[0].replaced] == ["My number is 4711.", "I live in Graz."]
        assert [row.session_id for row in await ann.sessions()] == [fork.id, session.id]


@pytest.mark.slow
async def test_a_turn_is_taken_once_and_one_after_the_other(tmp_path: Path) -> None:
    async with stage(tmp_path) as on, on.client() as ann:
        on.model.will(answer=[silent, says("Better.")])
        session = ann.session(check=False)
        held = await session.say("Think long.", idempotency_key="k1")
        assert (await session.say("Think long.", idempotency_key="k1")).id == held.id
        assert await refusal_of(session.say("Something else.", idempotency_key="k1")) == "idempotency_reused"
        assert await refusal_of(session.say("And this?")) == "turn_in_progress"
        await held.cancel("too long")
        await held.wait_until_ended(30)
        assert (await session.ask("Shorter.")).answer == "Better."
        assert "(no answer: " in prompts_of(on)[-1]
        both = await asyncio.gather(session.say("One."), session.say("Two."), return_exceptions=True)
        refused = [row for row in both if isinstance(row, Refused)]
        assert len(refused) == 1 and refused[0].code in ("turn_in_progress", "session_changed"), both
        assert (await session.show()).turn_count == 3


@pytest.mark.slow
async def test_a_session_is_its_participants_and_ends_when_it_is_deleted(tmp_path: Path) -> None:
    async with (
        stage(tmp_path) as on,
        on.client() as ann,
        on.client(OPERATOR) as olga,
        on.client("bk_eve_of_acme") as eve,
    ):
        on.model.will(answer=[says("Yes.")])
        session, shared = ann.session(check=False), ann.session(check=False, participants=("olga",))
        await session.ask("Is it mine?")
        await shared.open()
        assert await refusal_of(eve.session(session.id).show()) == "not_found"
        assert (await olga.session(session.id).show()).turn_count == 1, "operators read"
        assert await refusal_of(olga.session(session.id).ask("And mine?")) == "not_found"
        assert (await olga.session(shared.id).ask("And this?")).answer == "Yes."
        rows = await ann.sessions()
        assert [row.session_id for row in rows] == [shared.id, session.id]
        assert [row.session_id for row in await olga.sessions()] == [shared.id]
        await session.delete()
        assert await refusal_of(session.show()) == "not_found"
        assert await refusal_of(session.ask("Still there?")) == "not_found"
        assert [row.session_id for row in await ann.sessions()] == [shared.id]


@pytest.mark.slow
async def test_a_turn_whose_session_is_deleted_before_its_task_is_there_is_cancelled(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with stage(tmp_path) as on, on.client() as ann:
        on.model.will(answer=[says("Yes."), silent])
        session = ann.session(check=False)
        await session.ask("Is it mine?")
        submit_task = SessionRoutes._submit_task

        async def delete_and_submit(*args: Any, **options: Any) -> bool:
            await session.delete()
            return await submit_task(*args, **options)

        monkeypatch.setattr(SessionRoutes, "_submit_task", delete_and_submit)
        task = await session.say("And this?")
        assert (await task.wait_until_ended(20))["status"] == "cancelled"


async def until_summarised(session: Session) -> None:
    for _ in range(8):
        await session.ask("Go on.")
        if (await session.show()).summary is not None:
            return
    raise AssertionError("no summary was taken up")


@pytest.mark.slow
async def test_a_summary_takes_the_place_of_old_turns_and_says_what_it_left_out(tmp_path: Path) -> None:
    async with stage(tmp_path) as on, on.client() as ann:
        on.model.will(answer=[says(LONG + "It costs EUR 77.")], summary=[says("- Ann is 47.")])
        session = ann.session(check=False, tools=("calculate",))
        await session.ask("I am 47.")
        await until_summarised(session)
        shown = await session.show()
        assert shown.summary is not None and shown.summary.text == "- Ann is 47."
        [mark] = shown.summary.completeness.omissions
        assert mark.reason == "summarised" and "77" in mark.detail
        assert shown.summaries.made == 1 and 0 < shown.summaries.cost_usd_micros < shown.summary_limit_usd_micros
        await session.ask("How old am I?")
        last = prompts_of(on)[-1]
        assert "- Ann is 47." in last and "I am 47." not in last and "not in the summary: 77" in last
        asked = next(body for role, step, body in on.model.asked if (role, step) == ("work", "summary"))
        assert "tools" not in asked, "it may use none"
        turns = (await session.show()).turns
        assert turns[-1].memory_tokens < turns[-1].whole_tokens


@pytest.mark.slow
async def test_without_money_for_summaries_none_is_made(tmp_path: Path) -> None:
    async with stage(tmp_path) as on, on.client() as ann:
        on.model.will(answer=[says(LONG)])
        session = ann.session(check=False, summary_limit_usd=0)
        for _ in range(7):
            await session.ask("Go on.")
        assert on.model.count("work", "summary") == 0 and (await session.show()).summary is None


@pytest.mark.slow
async def test_what_a_document_said_in_an_earlier_turn_is_no_persons_word(tmp_path: Path) -> None:
    """The boundary of tools sees where a remembered value comes from: labels are signed anew for the turn's task."""
    async with stage(tmp_path) as on, on.client() as ann:
        await ann.add_document(FARES.encode(), "fares.md")
        search, answer = use(call("search_documents", query="fare to Graz")), says(f"Book graz-line [#{MARKER}].")
        on.model.will(answer=[search, answer, use(call("counter_increment", name="graz-line")), says("Done.")])
        session = ann.session(check=False, tools=("search_documents", "counter_increment"))
        cited = await session.ask("What is the fare to Graz?")
        assert cited.numbered_answer == "Book graz-line [1]." and [row.marker for row in cited.citations] == [MARKER]
        result = await session.ask("Count it.")
        assert result.status == "succeeded"
        submitted = await on.mesh.wait_for_fact(f"mesh.gateway.planner.*.{TENANT}.{result.task_id}.*", TaskSubmitted)
        labels = submitted.given[0].result.provenance
        verifier = on.mesh.context("worker").verifier
        assert any(label.kind == "passage" and verifier.verify_label(label, TENANT, result.task_id) for label in labels)
        subject = f"mesh.model_gateway.worker.*.{TENANT}.{result.task_id}.*"
        reply = await on.mesh.wait_for_fact(subject, ModelCallReplied)
        attribution = reply.tool_calls[0].attribution
        assert attribution is not None and attribution.least in ("retrieved", "model")
        [value] = [value for value in attribution.values if value.text == "graz-line"]
        assert {origin.source for origin in value.origins} == {"retrieved", "model"}


@pytest.mark.slow
async def test_the_command_goes_on_with_a_session(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    async with stage(tmp_path) as on:
        on.model.will(answer=[says("Noted."), says("It is 4711.")])
        target = GatewayTarget(on.url, "bk_ann_of_demo")
        assert await hold_conversation(target, "My number is 4711.", "", as_json=True) == Exit.OK
        session = json.loads(capsys.readouterr().out.splitlines()[0])["session_id"]
        assert await hold_conversation(target, "What is it?", session, as_json=False) == Exit.OK
        printed = capsys.readouterr()
        assert "It is 4711 [1]." in printed.out
        assert "[1] step result what was said before in this conversation" in printed.out
        assert f"bulkhead chat --session {session}" in printed.err
        assert "My number is 4711." in prompts_of(on)[-1]
        with pytest.raises(Refused) as refused:
            await hold_conversation(target, "What is it?", "nope", as_json=False)
        assert explain_refusal(refused.value).hint == "`bulkhead sessions` lists the ids"
        await list_sessions(GatewayOptions(url=on.url, api_key="bk_ann_of_demo"))
        assert re.fullmatch(rf"{session}  \S+.*  2 turns  My number is 4711.\n", capsys.readouterr().out)


def test_plain_programs_hold_a_session() -> None:
    with SyncMesh("http://127.0.0.1:9", "bk_x") as mesh:
        assert mesh.session("s1").id == "s1" and mesh.session().id == ""
