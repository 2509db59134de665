"""Agents that wait for leases and for each other: the first of answer and refusal wins; who is over keeps nothing."""

import json

import pytest

from bulkhead.flow import Send
from bulkhead_contracts import bounds
from bulkhead_contracts.agent import AgentWarned, WaitRefused
from bulkhead_contracts.control import CallDeferred
from bulkhead_contracts.lease import (
    LeaseEnded,
    LeaseGranted,
    LeaseQueued,
    LeaseRefused,
    LeaseReleaseRequested,
    LeaseRequested,
    resource_token,
)
from bulkhead_contracts.model import ModelCallRequested
from bulkhead_contracts.peer import AnswerGiven, AnswerRequested
from bulkhead_contracts.result import Completeness, Failure, Label, Omission, Result
from bulkhead_contracts.step import StepCancelRequested, StepFinished, StepProposed
from bulkhead_contracts.tool import ToolCallRequested, ToolSpec
from bulkhead_services.worker.core import Worker
from tests.playbook import START_UNIX_MS, Playbook
from tests.samples import sample
from tests.unit.services.worker.test_playbook import assign, current_call, thinks

CRM, ERP = "crm:account:42", "erp:order:7"
TOOLS = tuple(
    ToolSpec(name=name, description=name, parameters_json="{}")
    for name in ("acquire_lease", "release_lease", "ask_steps", "answer_step")
)


@pytest.fixture
def play() -> Playbook:
    play = Playbook(Worker())
    assign(play, tools=TOOLS)
    return play


def calls(play: Playbook, *made: tuple[str, dict]) -> None:
    thinks(play, calls=tuple((name, json.dumps(arguments)) for name, arguments in made))


def acquires(play: Playbook, *resources: str) -> list[str]:
    """The lease ids."""
    calls(play, *(("acquire_lease", {"resource": one}) for one in resources))
    return [one.lease_id for one in play.outputs_of(LeaseRequested)]


def grants(play: Playbook, lease: str, resource: str = CRM, token: int = 7) -> None:
    play.hears(
        sample(
            LeaseGranted, lease_id=lease, resource=resource, fencing_token=token, expires_unix_ms=START_UNIX_MS + 60_000
        ),
        sender="planner",
    )


def refuses(play: Playbook, wait: str) -> None:
    play.hears(
        WaitRefused(
            trip="d" * 32,
            wait_id=wait,
            step_id="s1",
            cycle=("t1/s1", CRM, "t2/s9", ERP),
            reason="t1/s1 waits for crm:account:42: a circle",
            hint="give back",
        ),
        sender="budget",
    )


def shown(play: Playbook) -> str:
    """All that the model reads of its last turn, and of what it was told."""
    asked = play.only_output(ModelCallRequested)
    last = asked.turns[-1].answers if asked.turns else ()
    texts = [part.text for one in last for part in one.parts] + [one.error.message for one in last if one.error]
    return " ".join([*texts, *(part.text for part in (*asked.parts, *asked.latest))])


def attempt(play: Playbook):
    [one] = play.state.running.values()
    return one


def test_a_lease_is_asked_for_in_the_resources_own_fold_and_the_step_waits_as_state(play):
    [lease] = acquires(play, CRM)
    send = play.send_of(LeaseRequested)
    assert send.to == "planner" and send.task == resource_token(CRM) and send.body.task == "t1"
    play.hears(
        sample(
            LeaseQueued,
            lease_id=lease,
            resource=CRM,
            holder_task="t2",
            holder_step="s9",
            place=1,
            until_unix_ms=START_UNIX_MS,
        ),
        sender="planner",
    )
    play.says()
    grants(play, lease)
    play.says(ModelCallRequested)
    assert "fencing token is 7" in shown(play) and set(attempt(play).leases) == {lease}
    play.replays()


def test_what_is_held_is_given_back_when_the_step_is_done_stopped_or_failed(play):
    [lease] = acquires(play, CRM)
    grants(play, lease)
    thinks(play, text="It is done.")
    play.says(StepProposed, LeaseReleaseRequested)
    assert play.only_output(LeaseReleaseRequested).lease_id == lease
    assert play.send_of(LeaseReleaseRequested).task == resource_token(CRM)


def test_a_step_that_is_stopped_while_it_waits_waits_no_longer(play):
    held, wanted = acquires(play, CRM, ERP)
    grants(play, held)
    play.says()
    play.hears(StepCancelRequested(step_id="s1", attempt=1, plan_version=1), sender="planner")
    assert {one.lease_id for one in play.outputs_of(LeaseReleaseRequested)} == {held, wanted}
    grants(play, wanted, ERP)  # It was on its way.
    assert play.only_output(LeaseReleaseRequested).lease_id == wanted


def test_the_refusal_of_a_wait_is_an_error_to_act_on_and_the_late_grant_goes_back(play):
    [lease] = acquires(play, CRM)
    refuses(play, lease)
    play.says(LeaseReleaseRequested, ModelCallRequested)
    answer = play.only_output(ModelCallRequested).turns[-1].answers[0]
    assert answer.error.code == "wait_refused" and "a circle" in answer.error.message
    grants(play, lease)
    assert play.only_output(LeaseReleaseRequested).lease_id == lease and attempt(play).leases == {}
    thinks(play, text="Without the CRM.")
    result = play.only_output(StepProposed).result
    assert result.standing == "degraded" and not result.completeness.complete


def test_the_refusal_of_a_wait_that_was_answered_first_changes_nothing(play):
    [lease] = acquires(play, CRM)
    grants(play, lease)
    refuses(play, lease)
    play.says()
    assert set(attempt(play).leases) == {lease}


def test_a_refused_wait_that_is_got_later_leaves_no_mark(play):
    [lease] = acquires(play, CRM)
    refuses(play, lease)
    [again] = acquires(play, CRM)
    assert again != lease
    grants(play, again)
    thinks(play, text="Done.")
    assert play.only_output(StepProposed).result.standing == "ok"


def test_an_expired_lease_is_told_and_no_longer_held(play):
    [lease] = acquires(play, CRM)
    grants(play, lease)
    play.hears(LeaseEnded(lease_id=lease, step_id="s1", resource=CRM, why="expired"), sender="planner")
    assert attempt(play).leases == {}
    calls(play, ("nothing", {}))
    assert "has expired" in shown(play)


def test_a_release_is_answered_and_one_of_what_is_not_held_is_refused(play):
    [lease] = acquires(play, CRM)
    grants(play, lease)
    calls(play, ("release_lease", {"resource": CRM}))
    asked = play.only_output(LeaseReleaseRequested)
    assert asked.lease_id == lease
    ended = LeaseEnded(lease_id=lease, call_id=asked.call_id, step_id="s1", resource=CRM, why="released")
    play.hears(ended, sender="planner")
    assert "given back" in shown(play) and attempt(play).leases == {}
    calls(play, ("release_lease", {"resource": CRM}))
    asked = play.only_output(LeaseReleaseRequested)
    play.hears(
        LeaseRefused(
            lease_id=asked.lease_id,
            call_id=asked.call_id,
            step_id="s1",
            resource=CRM,
            failure=Failure(code="not_lease_holder", message="another's"),
        ),
        sender="planner",
    )
    assert play.only_output(ModelCallRequested).turns[-1].answers[0].error.code == "not_lease_holder"


def test_held_already_it_is_prolonged_under_the_same_id(play):
    [lease] = acquires(play, CRM)
    grants(play, lease)
    assert acquires(play, CRM) == [lease]
    grants(play, lease)
    play.says(ModelCallRequested)


@pytest.mark.parametrize(
    "name, arguments, code",
    [
        ("acquire_lease", {"resource": "two words"}, "bad_arguments"),
        ("acquire_lease", {"resource": CRM, "ttl_s": 0}, "bad_arguments"),
        ("acquire_lease", {"resource": CRM, "ttl_s": 10**9}, "bad_arguments"),
        ("acquire_lease", {"resource": CRM, "ttl_s": "long"}, "bad_arguments"),
        ("acquire_lease", {"resource": ["a", {}]}, "bad_arguments"),
        ("acquire_lease", {"resource": "x" * 129}, "bad_arguments"),
        ("release_lease", {}, "bad_arguments"),
        ("release_lease", {"resource": {}}, "bad_arguments"),
        ("ask_steps", {"steps": []}, "bad_arguments"),
        ("ask_steps", {"steps": [{}, []]}, "bad_arguments"),
        ("ask_steps", {"steps": ["b"], "mode": "most"}, "bad_arguments"),
        ("ask_steps", {"steps": ["s1", "b"]}, "asks_itself"),
        ("ask_steps", {"steps": [f"b{n}" for n in range(17)]}, "bad_arguments"),
        ("answer_step", {"step": "b", "answer": "yes"}, "not_asked"),
    ],
)
def test_arguments_that_do_not_fit_are_errors_that_the_model_can_mend(play, name, arguments, code):
    calls(play, (name, arguments))
    play.says(ModelCallRequested)
    assert play.only_output(ModelCallRequested).turns[-1].answers[0].error.code == code


def test_the_same_resource_twice_in_one_turn_would_wait_for_itself(play):
    assert len(acquires(play, CRM, CRM)) == 1


def test_a_step_without_the_tool_does_not_get_it():
    play = Playbook(Worker())
    assign(play)
    calls(play, ("acquire_lease", {"resource": CRM}))
    play.says(ModelCallRequested)
    assert play.only_output(ModelCallRequested).turns[-1].answers[0].error.code == "unknown_tool"


# Peers


def asks(play: Playbook, *steps: str, **more) -> str:
    calls(play, ("ask_steps", {"steps": list(steps), **more}))
    return play.only_output(AnswerRequested).ask_id


def gives(play: Playbook, ask: str, target: str, **more) -> None:
    body = AnswerGiven(ask_id=ask, step_id="s1", target=target, outcome="answered").model_copy(update=more)
    play.hears(body, sender="planner")


def test_all_waits_for_each_and_a_result_becomes_an_input_with_all_that_it_rests_on(play):
    ask = asks(play, "b", "c")
    label = Label(sha256="a" * 64, kind="passage", observed_by="rag")
    less = Completeness.with_omissions(Omission(reason="pruned", what="two passages"))
    result = Result(content=play.add_content("B holds."), provenance=(label,), completeness=less)
    gives(play, ask, "b", result=result)
    gives(play, ask, "b", result=result)
    play.says()
    gives(play, ask, "c", text="I think so.", provenance=(label.model_copy(update={"sha256": "c" * 64}),))
    play.says(ModelCallRequested)
    assert "I think so." in shown(play)
    inputs = [part for part in play.only_output(ModelCallRequested).parts if part.kind == "input"]
    assert [(one.step_id, one.content) for one in inputs] == [("b", result.content)]
    thinks(play, text="Both hold.")
    proposed = play.only_output(StepProposed)
    assert [one.step_id for one in proposed.inputs] == ["b"]
    assert {one.sha256 for one in proposed.result.provenance} >= {"a" * 64, "c" * 64}
    assert not proposed.result.completeness.complete
    play.replays()


def test_any_goes_on_with_the_first_and_says_who_gave_none(play):
    ask = asks(play, "b", "c", mode="any")
    gives(play, ask, "b", outcome="refused", failure=Failure(code="step_failed", message="step b failed"))
    play.says()
    gives(play, ask, "c", text="Yes.")
    assert "step b failed" in shown(play) and "Yes." in shown(play)
    gives(play, ask, "b", text="Late.")
    play.says()


def test_nobody_answered_is_an_error(play):
    ask = asks(play, "b")
    gives(play, ask, "b", outcome="refused", failure=Failure(code="step_failed", message="step b failed"))
    error = play.only_output(ModelCallRequested).turns[-1].answers[0].error
    assert error.code == "no_answer" and "step b failed" in error.message


def test_a_question_is_shown_as_data_and_answered_while_others_are_waited_for(play):
    asks(play, "b")
    asked = sample(
        AnswerRequested, ask_id="q7", step_id="b", targets=("s1",), question="Is it so?", deadline_unix_ms=START_UNIX_MS
    )
    play.hears(asked, sender="planner")
    play.hears(asked, sender="planner")
    play.says()  # It waits, and cannot answer now: that is the circle that the watcher breaks.
    refuses(play, next(iter(attempt(play).outstanding)))
    parts = [(part.kind, part.text) for part in play.only_output(ModelCallRequested).latest]
    assert ("answer", "Is it so?") in parts and sum(text == "Is it so?" for _, text in parts) == 1
    calls(play, ("answer_step", {"step": "b", "answer": "It is."}))
    play.says(AnswerGiven, ModelCallRequested)
    given = play.only_output(AnswerGiven)
    assert (given.ask_id, given.step_id, given.target, given.text) == ("q7", "b", "s1", "It is.")
    assert all(part.text != "Is it so?" for part in play.only_output(ModelCallRequested).latest)


def test_questions_are_bounded(play):
    for number in range(bounds.MAX_OPEN_QUESTIONS + 5):
        play.hears(
            sample(
                AnswerRequested,
                ask_id=f"q{number}",
                step_id="b",
                targets=("s1",),
                question="x",
                deadline_unix_ms=START_UNIX_MS,
            ),
            sender="planner",
        )
    assert len(attempt(play).questions) == bounds.MAX_OPEN_QUESTIONS


# What comes from outside


def test_a_warning_is_shown_by_the_next_turn_and_once(play):
    warned = AgentWarned(trip="e" * 32, step_id="s1", what="the same call was made 3 times", hint="do something else")
    play.hears(warned, sender="budget")
    play.hears(warned, sender="budget")
    play.hears(warned.model_copy(update={"step_id": "other", "what": "not mine"}), sender="budget")
    play.says()
    calls(play, ("nothing", {}))
    told = [part.text for part in play.only_output(ModelCallRequested).latest if "3 times" in part.text]
    assert len(told) == 1 and "not mine" not in shown(play)


def test_what_comes_for_an_ended_step_says_nothing(play):
    thinks(play, text="Done.")
    for body in (
        AgentWarned(trip="e", what="x"),
        LeaseEnded(lease_id="l", step_id="s1", resource=CRM, why="expired"),
        AnswerGiven(ask_id="q", step_id="s1", target="b", outcome="answered", text="x"),
        LeaseRefused(lease_id="l", step_id="s1", resource=CRM, failure=Failure(code="x", message="x")),
    ):
        play.hears(body, sender="planner")
        play.says()
    refuses(play, "l")
    play.says()


def test_a_pause_has_no_cap_and_other_deferrals_still_have(play):
    call = current_call(play)
    for _ in range(3 * bounds.MAX_CALL_DEFERRALS):
        play.hears(CallDeferred(call_id=call, after_ms=500, reason="halted", paused=True), sender="model_gateway")
        play.fires(f"again-{call}")
        play.says(ModelCallRequested)
    for _ in range(bounds.MAX_CALL_DEFERRALS + 1):
        play.hears(CallDeferred(call_id=call, after_ms=1, reason="busy"), sender="model_gateway")
    assert play.only_output(StepFinished).failure.code == "deferred_too_often"
    assert not [one for one in play.outputs if isinstance(one, Send) and one.task]


def test_a_write_under_another_lease_is_the_same_write():
    """A step that is tried again has another fencing token; what it has written it must not write again."""
    pay = ToolSpec(name="pay", description="pays", parameters_json="{}", effect="write")

    def key(token: int, *, attempt: int = 1, to: str = "ann") -> list[str]:
        play = Playbook(Worker())
        assign(play, attempt, tools=(pay,))
        thinks(play, calls=(("pay", json.dumps({"to": to, "fencing_token": token})),) * 2)
        return [one.call_id for one in play.outputs_of(ToolCallRequested)]

    assert key(3) == key(9, attempt=2) and len(key(3)) == 1, "twice in one turn is once"
    assert key(3)[0] != key(3, to="bob")[0]
