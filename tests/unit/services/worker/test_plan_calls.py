"""A step whose plan makes its call, or asks a person: one request, whose reply is the result; no model, no judge."""

import json

import pytest

from bulkhead_contracts.control import CallDeferred, CallResumed
from bulkhead_contracts.model import ModelCallRequested
from bulkhead_contracts.plan import ASK_PERSON, PLAN_CALL_SOURCE, ApprovalQuestion, PlanStep, StepCall
from bulkhead_contracts.result import Citation, Failure, Label, Result, Usage, digest_of
from bulkhead_contracts.retrieval import Passage, RetrievalForeseen, RetrievalReplied, RetrievalRequested
from bulkhead_contracts.step import StepFinished, StepInput, StepPaused
from bulkhead_contracts.tool import ToolCallReplied, ToolCallRequested, ToolSpec
from bulkhead_services.worker.core import Worker
from tests.playbook import START_UNIX_MS, Playbook
from tests.unit.services.worker.test_playbook import assign

SEND = ToolSpec(name="send_mail", description="sends", parameters_json="{}", effect="write")
SEARCH = ToolSpec(name="search_documents", description="finds", parameters_json="{}", served_by="rag")
SEARCHES = StepCall(tool="search_documents", arguments_json='{"query": "tax"}')
ASK = ToolSpec(name=ASK_PERSON, description="asks", parameters_json="{}", effect="write")
CALL = StepCall(tool="send_mail", arguments_json='{"to": {"$from": "find", "field": "/mail"}, "text": "Dear Ann"}')
STEP = PlanStep(id="s1", title="Send", instruction="", kind="noop", inputs=("find",), call=CALL)
OWN = Label(
    sha256=digest_of(CALL.text_in("s1")),
    kind="objective",
    source=f"{PLAN_CALL_SOURCE}s1",
    trust="user",
    observed_by="gateway",
)


@pytest.fixture
def play() -> Playbook:
    return Playbook(Worker())


def found(play: Playbook, text: str = '{"mail": "a@b.example"}') -> StepInput:
    ref = play.add_content(text, "tool_executor")
    label = Label(sha256=ref.sha256, kind="tool_result", source="find_person", observed_by="tool_executor")
    return StepInput(step_id="find", result=Result(content=ref, summary="Ann", provenance=(label,)))


def asked(play: Playbook, **changes) -> ToolCallRequested:
    assign(play, **{"step": STEP, "tools": (SEND,), "labels": (OWN,), "inputs": (found(play),), **changes})
    play.says(ToolCallRequested)
    return play.only_output(ToolCallRequested)


def reply(play: Playbook, call_id: str, **changes) -> None:
    ref = play.add_content("sent", "tool_executor")
    label = Label(sha256=ref.sha256, kind="tool_result", source="send_mail", observed_by="tool_executor", step_id="s1")
    body = ToolCallReplied(
        call_id=call_id,
        step_id="s1",
        outcome="succeeded",
        content=ref,
        provenance=(label,),
        effect="write",
        usage=Usage(tool_calls=1),
    )
    play.hears(body.model_copy(update=changes), sender="tool_executor")


def test_the_plans_call_is_made_once_and_its_reply_is_the_result(play):
    request = asked(play)
    assert json.loads(request.arguments_json) == {"to": "a@b.example", "text": "Dear Ann"}
    assert request.attribution is None and request.basis is not None and request.basis.call == CALL
    assert [label.kind for label in request.basis.labels] == ["objective", "tool_result"]
    sent = play.send_of(ToolCallRequested)
    assert (sent.to, sent.grant) == ("tool_executor", "step-token")
    play.hears_again()
    play.says()
    reply(play, request.call_id)
    play.says(StepFinished)
    finished = play.only_output(StepFinished)
    assert finished.failure is None and finished.result.content.author == "tool_executor"
    assert finished.usage == Usage(tool_calls=1) and not play.outputs_of(ModelCallRequested)
    assert {label.source for label in finished.result.provenance} == {"send_mail", "find_person"}
    reply(play, request.call_id)
    play.says()
    play.replays()


def test_a_second_attempt_at_a_write_is_the_same_call(play):
    first, again = asked(play), asked(play, attempt=2)
    assert (first.call_id, first.attempt, again.attempt) == (again.call_id, 1, 2)
    other = asked(play, attempt=3, inputs=(found(play, '{"mail": "c@d.example"}'),))
    assert other.call_id != first.call_id


@pytest.mark.parametrize(("changes", "code"), [({"tools": ()}, "not_granted"), ({"inputs": ()}, "unknown_input")])
def test_a_call_that_cannot_be_made_fails_the_attempt(play, changes, code):
    assign(play, **{"step": STEP, "tools": (SEND,), "inputs": (found(play),), **changes})
    play.says(StepFinished)
    failure = play.only_output(StepFinished).failure
    assert failure is not None and failure.code == code and failure.hint


@pytest.mark.parametrize(
    ("outcome", "code", "expected"), [("failed", "timeout", "timeout"), ("uncertain", "lost", "uncertain_effect")]
)
def test_a_call_that_fails_fails_the_attempt_by_its_code(play, outcome, code, expected):
    request = asked(play)
    failure = Failure.from_text(code, "no answer")
    reply(play, request.call_id, outcome=outcome, content=None, provenance=(), standing="failed", failure=failure)
    play.says(StepFinished)
    assert play.only_output(StepFinished).failure.code == expected


def test_a_search_of_the_plan_brings_its_passages_as_json(play):
    step = PlanStep(
        id="s1",
        title="",
        instruction="",
        kind="noop",
        call=StepCall(tool="search_documents", arguments_json='{"query": "tax"}'),
    )
    assign(play, step=step, tools=(SEARCH,))
    play.says(RetrievalRequested)
    request = play.only_output(RetrievalRequested)
    ref = play.add_content("The tax is 19 %.", "rag")
    citation = Citation(
        marker=ref.marker, document="law.txt", document_sha256=ref.sha256, chunk_id="c", start=0, end=16
    )
    label = Label(sha256=ref.sha256, kind="passage", source="law.txt", observed_by="rag")
    passages = (Passage(content=ref, citation=citation, title="Law"),)
    body = RetrievalReplied(
        call_id=request.call_id, step_id="s1", outcome="found", passages=passages, provenance=(label,)
    )
    play.hears(body, sender="rag")
    play.says(StepFinished)
    result = play.only_output(StepFinished).result
    stored = {"passages": [{"document": "law.txt", "title": "Law", "text": "The tax is 19 %."}]}
    assert [json.loads(text) for text in play.send_of(StepFinished).contents] == [stored]
    assert result.citations == (citation,) and result.provenance == (label,)


def test_what_a_search_finds_is_stored_where_its_reference_says(play):
    assign(play, step=PlanStep(id="s1", title="", instruction="", kind="noop", call=SEARCHES), tools=(SEARCH,))
    reply_without = RetrievalReplied(
        call_id=play.only_output(RetrievalRequested).call_id, step_id="s1", outcome="found"
    )
    play.hears(reply_without, sender="rag")
    content = play.only_output(StepFinished).result.content
    assert content.carried_text == '{"passages": []}', "a short text is put nowhere else"


def test_a_query_that_is_foreseen_is_asked_under_its_own_grant_and_nobody_waits_for_it(play):
    request = RetrievalRequested(
        call_id="ahead-1", step_id="s2", attempt=0, query="tax", deadline_unix_ms=START_UNIX_MS + 1, asked_ahead=True
    )
    asked(play)
    before = play.state
    play.hears(RetrievalForeseen(request=request), sender="planner", grant="of s2")
    play.says(RetrievalRequested)
    assert (play.only_output(RetrievalRequested), play.send_of(RetrievalRequested).to) == (request, "rag")
    assert play.send_of(RetrievalRequested).grant == "of s2"
    for reply_ahead in (
        RetrievalReplied(
            call_id="ahead-1", step_id="s2", outcome="found", asked_ahead=True, usage=Usage(input_tokens=3)
        ),
        CallDeferred(call_id="ahead-1", step_id="s2", after_ms=5, reason="budget asks to wait"),
        CallResumed(call_id="ahead-1", step_id="s2"),
    ):
        assert play.hears(reply_ahead, sender="rag") == () and play.state == before
    plain_search = request.model_copy(update={"asked_ahead": False})
    assert play.hears(RetrievalForeseen(request=plain_search), sender="planner", grant="of s2") == ()
    play.replays()


def test_a_question_fits_its_call_whatever_it_builds_on(play):
    inputs = tuple(StepInput(step_id=f"{n:064}", result=Result(summary="\U00010348" * 200)) for n in range(64))
    question = ApprovalQuestion(text="\x01" * 2000, expires_ms=1)
    step = PlanStep(id="s1", title="", instruction="", kind="noop", question=question)
    arguments = json.loads(asked(play, step=step, tools=(ASK,), inputs=inputs).arguments_json)
    assert arguments["results"][-1].endswith(" more results") and len(arguments["results"]) < 64


def test_a_person_is_asked_with_the_question_and_what_it_is_about(play):
    step = PlanStep(
        id="s1",
        title="Release",
        instruction="",
        kind="noop",
        inputs=("find",),
        question=ApprovalQuestion(text="Write to Ann?", roles=("operator",), expires_ms=60_000),
    )
    request = asked(play, step=step, tools=(ASK,))
    assert request.tool == ASK_PERSON and json.loads(request.arguments_json) == {
        "question": "Write to Ann?",
        "expires_ms": 60_000,
        "roles": ["operator"],
        "results": ["find: Ann"],
    }
    until = START_UNIX_MS + 60_000
    deferred = CallDeferred(
        call_id=request.call_id,
        step_id="s1",
        after_ms=15_000,
        reason="waits",
        paused=True,
        code="approval_wanted",
        until_unix_ms=until,
    )
    play.hears(deferred, sender="tool_executor")
    assert play.only_output(StepPaused).until_unix_ms == until
    play.hears(CallResumed(call_id=request.call_id, step_id="s1"), sender="tool_executor")
    assert play.only_output(ToolCallRequested).call_id == request.call_id
    denied = Failure.from_text("approval_denied", "ann denied ask_person: not now")
    reply(play, request.call_id, outcome="refused", content=None, provenance=(), standing="failed", failure=denied)
    assert play.only_output(StepFinished).failure == denied
    play.replays()
