"""The worker's playbooks: think, act, observe, finish; every cap; what is lost is said."""

import pytest

from bulkhead_contracts import bounds
from bulkhead_contracts.control import CallDeferred
from bulkhead_contracts.model import ModelCallReplied, ModelCallRequested, ToolCall
from bulkhead_contracts.plan import PlanStep
from bulkhead_contracts.result import Citation, Completeness, Failure, Label, Omission, Result, Usage
from bulkhead_contracts.retrieval import Passage, RetrievalReplied, RetrievalRequested
from bulkhead_contracts.step import StepAssigned, StepCancelRequested, StepFinished, StepInput, StepProposed
from bulkhead_contracts.tool import ToolCallReplied, ToolCallRequested, ToolSpec
from bulkhead_services.worker.core import Worker
from tests.playbook import START_UNIX_MS, Playbook

SEARCH = ToolSpec(name="search_documents", description="find passages", parameters_json="{}", served_by="rag")
CALC = ToolSpec(name="calculate", description="decimal arithmetic", parameters_json="{}")
PAY = ToolSpec(name="pay", description="pays", parameters_json="{}", effect="write")


@pytest.fixture
def play() -> Playbook:
    return Playbook(Worker())


def assign(play: Playbook, attempt: int = 1, **changes) -> StepAssigned:
    body = StepAssigned(
        step=PlanStep(id="s1", title="Find", instruction="find the fee", acceptance="names the fee"),
        attempt=attempt,
        plan_version=1,
        objective=play.add_content("the objective", "gateway"),
        tools=(SEARCH, CALC, PAY),
        deadline_unix_ms=START_UNIX_MS + 60_000,
    ).model_copy(update=changes)
    play.hears(body, sender="planner", grant="step-token")
    return body


def thinks(play: Playbook, text: str = "", calls: tuple = (), **changes) -> None:
    asked = current_call(play)
    body = ModelCallReplied(
        call_id=asked,
        step_id="s1",
        outcome="answered",
        prompt_id="worker.step",
        content=play.add_content(text) if text else None,
        usage=Usage(model_calls=1, cost_usd_micros=7),
        tool_calls=tuple(ToolCall(id=f"m{n}", name=name, arguments_json=args) for n, (name, args) in enumerate(calls)),
    ).model_copy(update=changes)
    play.hears(body, sender="model_gateway")


def current_call(play: Playbook) -> str:
    attempt = next(one for one in play.state.running.values() if one.phase == "thinking")
    return next(iter(attempt.outstanding))


def label(ref, kind, who) -> Label:
    return Label(sha256=ref.sha256, kind=kind, source="fares.md", observed_by=who)


def finds(play: Playbook, call_id: str, text: str = "The fee is 40.", **changes) -> None:
    ref = play.add_content(text, "rag")
    cited = Citation(marker=ref.marker, document="fares.md", document_sha256="0" * 64, chunk_id="c1", start=0, end=9)
    body = RetrievalReplied(
        call_id=call_id,
        step_id="s1",
        outcome="found",
        passages=(Passage(content=ref, citation=cited),),
        provenance=(label(ref, "passage", "rag"),),
        usage=Usage(retrievals=1),
    )
    play.hears(body.model_copy(update=changes), sender="rag")


def computes(play: Playbook, call_id: str, **changes) -> None:
    ref = play.add_content("1 + 1 = 2", "tool_executor")
    body = ToolCallReplied(
        call_id=call_id,
        step_id="s1",
        outcome="succeeded",
        content=ref,
        provenance=(label(ref, "tool_result", "tool_executor"),),
        usage=Usage(tool_calls=1),
    )
    play.hears(body.model_copy(update=changes), sender="tool_executor")


def test_think_act_in_parallel_observe_in_order_finish(play):
    assign(play)
    play.says(ModelCallRequested)
    assert play.send_of(ModelCallRequested).grant == "step-token"
    thinks(play, calls=(("search_documents", '{"query": "fee"}'), ("calculate", '{"expression": "1+1"}')))
    play.says(RetrievalRequested, ToolCallRequested)
    search, calc = play.only_output(RetrievalRequested).call_id, play.only_output(ToolCallRequested).call_id
    computes(play, calc)
    play.says()
    finds(play, search)
    play.says(ModelCallRequested)
    turn = play.only_output(ModelCallRequested).turns[0]
    assert [answer.tool_call_id for answer in turn.answers] == ["m0", "m1"], "in the model's order, not by arrival"
    thinks(play, text="The fee is 40 [#x].")
    play.says(StepProposed)
    proposed = play.only_output(StepProposed)
    assert proposed.usage == Usage(model_calls=2, tool_calls=1, retrievals=1, cost_usd_micros=14)
    assert [one.content.author for one in proposed.evidence] == ["rag", "tool_executor"], "so is the evidence"
    assert len(proposed.result.citations) == 1 and proposed.result.standing == "ok"
    play.replays()


def test_a_noop_step_returns_its_instruction(play):
    assign(play, step=PlanStep(id="n", title="", instruction="echo", kind="noop"))
    assert play.only_output(StepFinished).result.summary == "echo"


def test_a_noop_step_passes_on_what_its_inputs_lack_and_rest_on(play):
    seen = label(play.add_content("a passage"), "passage", "rag")
    weak = Result(
        content=play.add_content("40"),
        standing="degraded",
        standing_reason="fallback model",
        provenance=(seen,),
        completeness=Completeness.with_omissions(Omission(reason="summarised", what="the table")),
    )
    assign(
        play,
        step=PlanStep(id="n", title="", instruction="echo", kind="noop", inputs=("s0",)),
        inputs=(StepInput(step_id="s0", result=weak),),
    )
    result = play.only_output(StepFinished).result
    assert (result.standing, result.standing_reason) == ("degraded", "fallback model")
    assert result.completeness == weak.completeness and result.provenance == (seen,)


def test_with_checks_off_the_planner_hears_it(play):
    assign(play, check=False)
    thinks(play, text="42")
    play.says(StepFinished)


@pytest.mark.parametrize(
    "name, args, code",
    [
        ("rm_rf", "{}", "unknown_tool"),
        ("calculate", "{not json", "malformed_arguments"),
        ("calculate", "[1]", "malformed_arguments"),
        ("search_documents", "{}", "bad_arguments"),
        ("search_documents", '{"query": "x", "k": 999}', "bad_arguments"),
    ],
)
def test_a_bad_call_comes_back_to_the_model_as_an_error(play, name, args, code):
    assign(play)
    thinks(play, calls=((name, args),))
    play.says(ModelCallRequested)
    error = play.only_output(ModelCallRequested).turns[0].answers[0].error
    assert error.code == code and error.hint


def test_bad_calls_are_bounded(play):
    assign(play)
    for _ in range(bounds.MAX_CALL_ERRORS_PER_STEP):
        thinks(play, calls=(("nope", "{}"),))
    thinks(play, calls=(("nope", "{}"),))
    assert play.only_output(StepFinished).failure.code == "call_error_cap"


def test_turns_are_capped(play):
    assign(play)
    for _ in range(bounds.MAX_TURNS_PER_STEP):
        thinks(play, calls=(("calculate", '{"expression": "1"}'),))
        computes(play, play.only_output(ToolCallRequested).call_id)
    play.says(StepFinished)
    assert play.only_output(StepFinished).failure.code == "turn_cap"
    play.replays()


def test_a_write_keeps_its_key_over_attempts_and_plans_and_a_read_does_not(play):
    keys = {}
    for attempt in (1, 2):
        assign(play, attempt=attempt)
        thinks(play, calls=(("pay", '{"to": "x", "amount": 1}'), ("calculate", '{"expression": "1"}')))
        keys[attempt] = [one.call_id for one in play.outputs_of(ToolCallRequested)]
        play.hears(StepCancelRequested(step_id="s1", attempt=attempt, plan_version=1), sender="planner")
    assert keys[1][0] == keys[2][0], "the same write in a second attempt is the same write"
    assert keys[1][1] != keys[2][1], "a read is done afresh"


def test_the_same_write_wanted_twice_in_one_attempt_is_two_writes(play):
    assign(play)
    thinks(play, calls=(("pay", '{"to": "x"}'),))
    first = play.only_output(ToolCallRequested).call_id
    computes(play, first)
    thinks(play, calls=(("pay", '{"to":"x"}'),))
    assert play.only_output(ToolCallRequested).call_id != first


def test_a_write_that_failed_keeps_its_key_when_it_is_made_again(play):
    """Made under another key, it would be made once more by an attempt in which the first call succeeds."""
    assign(play)
    thinks(play, calls=(("pay", '{"to": "x"}'),))
    first = play.only_output(ToolCallRequested).call_id
    failure = Failure(code="not_made", message="nothing was paid")
    computes(play, first, outcome="failed", content=None, failure=failure)
    thinks(play, calls=(("pay", '{"to": "x"}'),))
    assert play.only_output(ToolCallRequested).call_id == first


def test_an_uncertain_write_ends_the_attempt(play):
    assign(play)
    thinks(play, calls=(("pay", "{}"),))
    computes(
        play,
        play.only_output(ToolCallRequested).call_id,
        outcome="uncertain",
        content=None,
        failure=Failure(code="uncertain", message="may have been paid"),
    )
    assert play.only_output(StepFinished).failure.code == "uncertain_effect"


def test_what_was_cut_and_what_failed_reach_the_result(play):
    assign(play)
    thinks(play, calls=(("search_documents", '{"query": "fee"}'), ("calculate", '{"expression": "1"}')))
    search, calc = play.only_output(RetrievalRequested).call_id, play.only_output(ToolCallRequested).call_id
    finds(
        play,
        search,
        completeness=Completeness.with_omissions(Omission(reason="pruned", what="4 passages")),
        standing="degraded",
        failure=None,
    )
    computes(play, calc, outcome="failed", content=None, failure=Failure(code="timeout", message="took too long"))
    thinks(
        play,
        text="The fee is 40.",
        completeness=Completeness.with_omissions(Omission(reason="truncated", what="answer")),
    )
    result = play.only_output(StepProposed).result
    assert {one.reason for one in result.completeness.omissions} == {"pruned", "truncated", "failed_part"}
    assert result.standing == "degraded" and "calculate failed" in result.standing_reason


@pytest.mark.parametrize("arguments", ["{not json", "[1]"])
def test_a_tool_that_no_call_reached_is_missing_from_the_result(play, arguments):
    assign(play)
    thinks(play, calls=(("calculate", arguments), ("rm_rf", "{}")))
    thinks(play, text="The tool did not work.")
    result = play.only_output(StepProposed).result
    assert [one.what for one in result.completeness.omissions] == ["tool calculate"], "an invented tool is no loss"
    assert result.standing == "degraded" and "calculate failed" in result.standing_reason


def test_a_refused_tool_is_missing_from_the_result(play):
    assign(play)
    thinks(play, calls=(("calculate", '{"no_such": 1}'),))
    refusal = Failure(code="bad_arguments", message="expression is missing")
    computes(play, play.only_output(ToolCallRequested).call_id, outcome="refused", content=None, failure=refusal)
    thinks(play, text="The tool did not work.")
    assert play.only_output(StepProposed).result.completeness.omissions[0].detail == "expression is missing"


def test_a_degraded_input_is_said_to_the_model_and_in_the_result(play):
    weak = Result(
        content=play.add_content("about 40"),
        standing="degraded",
        standing_reason="fallback model",
        completeness=Completeness.with_omissions(Omission(reason="summarised", what="the table")),
    )
    assign(play, inputs=(StepInput(step_id="s0", result=weak),))
    parts = play.only_output(ModelCallRequested).parts
    assert any(part.kind == "context" and "fallback model" in part.text for part in parts)
    thinks(play, text="40")
    result = play.only_output(StepProposed).result
    assert result.standing == "degraded" and not result.completeness.complete


def test_model_failure_budget_and_empty_answers_end_the_attempt(play):
    assign(play)
    thinks(play, outcome="refused", failure=Failure(code="refused_by_budget", message="the ceiling"))
    assert play.only_output(StepFinished).failure.code == "refused_by_budget"
    assign(play, attempt=2)
    thinks(play)
    assert play.only_output(StepFinished).failure.code == "empty_answer"


def test_a_cancelled_attempt_says_nothing_more(play):
    assign(play)
    call = current_call(play)
    play.hears(StepCancelRequested(step_id="s1", attempt=1, plan_version=1), sender="planner")
    play.hears(ModelCallReplied(call_id=call, outcome="answered", content=play.add_content("late"), prompt_id="p"))
    play.says()
    assign(play)
    play.says()


def test_a_deferred_call_is_made_again_under_its_id(play):
    assign(play)
    call = current_call(play)
    play.hears(CallDeferred(call_id=call, after_ms=500), sender="model_gateway")
    play.says()
    play.fires(f"again-{call}")
    assert play.only_output(ModelCallRequested).call_id == call
    for _ in range(bounds.MAX_CALL_DEFERRALS):
        play.hears(CallDeferred(call_id=call, after_ms=1), sender="model_gateway")
    assert play.only_output(StepFinished).failure.code == "deferred_too_often"


def test_replies_that_nobody_waits_for_and_repeats_change_nothing(play):
    assign(play)
    before = play.state
    computes(play, "f" * 32)
    play.says()
    assert play.state == before
    thinks(play, calls=(("calculate", "{}"),))
    assert play.hears_again() == ()


def test_steps_of_one_task_do_not_mix(play):
    assign(play)
    assign(play, step=PlanStep(id="s2", title="", instruction="other", acceptance="x"))
    assert len(play.state.running) == 2
    calls = [next(iter(one.outstanding)) for one in play.state.running.values()]
    assert len(set(calls)) == 2


def test_a_role_chooses_the_prompt(play):
    assign(play, step=PlanStep(id="s1", title="", instruction="i", acceptance="a", role="lawyer"))
    assert play.only_output(ModelCallRequested).prompt_id == "worker.lawyer"


def asks(play: Playbook, *arguments: str) -> list[ToolCallRequested]:
    thinks(play, calls=tuple(("pay", one) for one in arguments))
    return play.outputs_of(ToolCallRequested)


def test_a_write_is_told_from_another_by_its_arguments_not_by_how_they_are_written(play):
    assign(play)
    (ann_lee,) = asks(play, '{"to": "Ann Lee"}')
    computes(play, ann_lee.call_id)
    (annlee,) = asks(play, '{"to":"AnnLee"}')
    computes(play, annlee.call_id)
    (again,) = asks(play, '{"to" : "AnnLee"}')
    assert again.call_id not in (ann_lee.call_id, annlee.call_id), "wanted twice is two writes"
    play.hears(StepCancelRequested(step_id="s1", attempt=1, plan_version=1), sender="planner")
    assign(play, attempt=2)
    (second,) = asks(play, '{"to":"AnnLee"}')
    assert second.call_id == annlee.call_id, "done in the first attempt, so not done again in the second"


def test_what_a_stopped_attempt_spent_is_told(play):
    assign(play)
    thinks(play, calls=(("calculate", "{}"),))
    play.hears(StepCancelRequested(step_id="s1", attempt=1, plan_version=1, reason="late"), sender="planner")
    finished = play.only_output(StepFinished)
    assert finished.failure.code == "cancelled" and finished.usage.cost_usd_micros == 7


@pytest.mark.parametrize("depth", [bounds.MAX_JSON_DEPTH + 1, 900, 5_000])
def test_deep_arguments_are_refused_whatever_the_stack(play, depth):
    assign(play)
    thinks(play, calls=(("pay", '{"a":' + "[" * depth + "]" * depth + "}"),))
    assert play.only_output(ModelCallRequested).turns[0].answers[0].error.code == "malformed_arguments"


@pytest.mark.parametrize(("route", "tier"), [("", "default"), ("small", "small")])
def test_the_model_is_asked_on_the_route_of_the_step(play, route, tier):
    assign(play, route=route)
    assert play.only_output(ModelCallRequested).tier == tier
