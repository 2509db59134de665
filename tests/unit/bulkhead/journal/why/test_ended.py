"""`bulkhead why` of what is over: what a doubtful success lacks and what was built on it, waits, who cancelled."""

from bulkhead.bus.port import StoredMessage
from bulkhead.journal import pause_status
from bulkhead.journal.history import build_entries
from bulkhead.journal.why.reasons import explain_task
from bulkhead_contracts.control import CallDeferred, CallResumed
from bulkhead_contracts.envelope import Envelope
from bulkhead_contracts.model import ModelCallRequested
from bulkhead_contracts.plan import Delegation, Plan, PlanAdopted, PlanStep
from bulkhead_contracts.result import Completeness, ContentRef, Failure, Omission, Result
from bulkhead_contracts.step import StepAssigned
from bulkhead_contracts.task import TaskCancelRequested, TaskEnded, TaskPaused
from bulkhead_contracts.tool import ToolCallReplied, ToolCallRequested
from tests.unit.bulkhead.journal.why.test_reasons import messages

LATE = "weather took longer than 10000 ms (tried 3 times)"


def said(*bodies, actor: str = "") -> list[StoredMessage]:
    """(sender, receiver, body) as messages, a second apart."""
    found = []
    for number, (sender, receiver, body) in enumerate(bodies, 1):
        head = Envelope(f"{number:032x}", body.ce_type(), sender, 1000 * number, actor=actor)
        subject = f"mesh.{sender}.{receiver}.0.demo.t1.-"
        found.append(StoredMessage(subject, head.to_headers(), body.encode(), number, 1000 * number))
    return found


def reasons(found: list[StoredMessage]):
    return explain_task(build_entries(found), "t1", found[-1].time_unix_ms)


def call(name: str, step: str, tool: str, arguments: str = "{}"):
    return (
        "worker",
        "tool_executor",
        ToolCallRequested(
            call_id=name, step_id=step, attempt=1, tool=tool, arguments_json=arguments, deadline_unix_ms=10**12
        ),
    )


def reply(name: str, step: str, effect: str = "read", late: bool = False):
    return (
        "tool_executor",
        "worker",
        ToolCallReplied(
            call_id=name,
            step_id=step,
            outcome="failed" if late else "succeeded",
            effect=effect,
            failure=Failure(code="timeout", message=LATE) if late else None,
        ),
    )


def outcome(*middle):
    steps = (
        PlanStep(id="a", title="Look", instruction="x"),
        PlanStep(id="b", title="Book", instruction="x", inputs=("a",)),
        PlanStep(id="c", title="Tell", instruction="x", inputs=("b",)),
        PlanStep(id="d", title="Else", instruction="x"),
    )
    lacks = Completeness.with_omissions(Omission(reason="failed_part", what="tool weather", detail=LATE))
    result = Result(standing="degraded", standing_reason="weather failed", completeness=lacks)
    return said(
        ("planner", "gateway", PlanAdopted(plan=Plan(steps=steps))),
        *middle,
        ("planner", "gateway", TaskEnded(status="succeeded", result=result)),
    )


def test_a_success_without_a_tool_says_what_was_built_and_written_on_it() -> None:
    told = reasons(
        outcome(
            call("e", "a", "ledger_book", '{"n": 0}'),
            reply("e", "a", "write"),
            call("w", "a", "weather"),
            reply("w", "a", late=True),
            call("l", "b", "ledger_book", '{"n": 1}'),
            reply("l", "b", "write"),
            call("o", "d", "ledger_book", '{"n": 9}'),
            reply("o", "d", "write"),
        )
    )
    assert [one.kind for one in told] == ["ended", "doubtful", "doubtful"]
    lacking = told[2]
    assert f"step a continued without weather: {LATE}" in lacking.what and "built on it: step b, step c" in lacking.what
    assert 'ledger_book {"n": 1} (step b)' in lacking.what and "not undone" in lacking.what
    assert '"n": 0' not in lacking.what and '"n": 9' not in lacking.what, "before it, and of a step beside it"
    assert "`bulkhead replay t1 --from-step a --watch`" in lacking.todo and lacking.evidence


def test_a_call_that_worked_after_all_is_not_missing() -> None:
    told = reasons(
        outcome(
            call("w", "d", "weather"),
            reply("w", "d", late=True),
            call("v", "d", "weather"),
            reply("v", "d"),
            call("x", "a", "weather"),
            reply("x", "a", late=True),
        )
    )
    assert [one.what.partition(":")[0] for one in told[2:]] == ["step a continued without weather"]
    assert "nothing was written after it" in told[2].what


def test_who_cancelled_a_task_when_and_why_is_told_once() -> None:
    asks = TaskCancelRequested(reason="changed my mind")
    end = TaskEnded(status="cancelled", failure=Failure(code="cancelled", message="changed my mind"))
    found = said(("gateway", "gateway", asks), ("gateway", "planner", asks), actor="olga")
    (asked,) = [one for one in reasons(found) if one.kind == "halted"]
    assert asked.what == "olga cancelled it: changed my mind", "it is passed on, and told once"
    found = said(("gateway", "gateway", asks), ("gateway", "planner", asks), ("planner", "gateway", end), actor="olga")
    (told,) = reasons(found)
    assert told.what.startswith("it was cancelled by olga, who asked for it at ") and told.what.endswith(
        ": changed my mind"
    )


def test_a_task_that_waited_at_its_ceiling_says_who_let_it_go_on() -> None:
    found = messages("topped_up")
    told = [one for one in explain_task(build_entries(found), found[0].task, 0) if one.kind == "waited"]
    assert told and all("continued: olga topped it up" in one.what and "is used up: limit" in one.what for one in told)
    assert not any("bulkhead topup" in one.what for one in told), "nobody need do that any more"


def test_a_task_that_waited_for_a_halt_tells_of_it_as_of_what_is_over() -> None:
    reason = "tool crm is halted by operator:ada: look. first. It goes on after `bulkhead resume --tool crm --tenant t`"
    pauses = [TaskPaused(active=active, reason=reason if active else "") for active in (True, False)]
    told = reasons(
        said(*(("planner", "gateway", one) for one in pauses), ("planner", "gateway", TaskEnded(status="succeeded")))
    )
    (waited,) = [one for one in told if one.kind == "waited"]
    assert waited.what.endswith(": tool crm was halted by operator:ada: look. first; it continued"), waited.what


def test_a_failure_of_what_has_ended_does_not_say_that_it_goes_on() -> None:
    way_on = "; it goes on where it stands; if nobody does that, it ends at its deadline"
    own = "used up: limit 3. An operator gives it more: `bulkhead topup t1 --usd 1` is enough for that one call"
    own += way_on
    days = "used up: limit 3. An operator raises it: `bulkhead limits set day --usd 2`" + way_on
    for reason, kept in ((own, "used up: limit 3."), (days, days.removesuffix(way_on))):
        failure = Failure(code="budget_exceeded", message=f"too late: {reason}", hint="submit it again")
        shown = pause_status.reword_failure(failure)
        assert (shown.message, shown.hint) == (f"too late: {kept}", "submit it again")
        (told,) = reasons(said(("planner", "gateway", TaskEnded(status="halted", failure=failure))))
        assert told.what == f"it was halted: too late: {kept} (budget_exceeded)"


def test_a_call_that_was_held_back_to_the_end_does_not_say_that_it_goes_on() -> None:
    reason = "used up: limit 3. An operator gives it more: `bulkhead topup t1 --usd 1` is enough" + pause_status.WAY_ON
    held = CallDeferred(call_id="c", after_ms=1, reason=reason, paused=True, code="budget_exceeded")
    told = reasons(said(("model_gateway", "planner", held), ("planner", "gateway", TaskEnded(status="halted"))))
    assert [one.what for one in told if one.kind == "halted"] == [
        "a call of it was held back to the end: used up: limit 3."
    ]


AT_CEILING = "The budget of task t1 is used up: limit 100 tokens"


def adopted_run(*middle):
    """A run of an outside agent, with calls that a ceiling holds back."""
    step = PlanStep(id="agent", title="x", instruction="x", kind="noop", role="outside", adopted=True)
    objective = ContentRef(author="gateway", sha256="0" * 64, size_bytes=1)
    assigned = StepAssigned(step=step, attempt=1, plan_version=1, objective=objective, deadline_unix_ms=10**12)
    return said(("planner", "doors", assigned), *middle)


def held_call(name: str):
    asked = ModelCallRequested(
        call_id=name, step_id="agent", attempt=1, prompt_id="adopted@1", tier="m", deadline_unix_ms=10**12
    )
    put_off = CallDeferred(call_id=name, after_ms=500, reason=AT_CEILING, paused=True, code="budget_exceeded")
    return ("doors", "model_gateway", asked), ("model_gateway", "doors", put_off)


def test_a_delegated_step_waits_for_who_has_it_and_for_no_worker() -> None:
    step = PlanStep(id="a", title="x", instruction="x", acceptance="x", role="refunds")
    objective = ContentRef(author="gateway", sha256="0" * 64, size_bytes=1)
    to = Delegation(role="refunds", to="worker", name="wrk_demo")
    assigned = StepAssigned(
        step=step, attempt=1, plan_version=1, objective=objective, deadline_unix_ms=10**12, delegated=to
    )
    [reason] = reasons(said(("planner", "worker", assigned)))
    assert reason.what.startswith("wrk_demo has not answered step a") and "wrk_demo runs" in reason.todo


def test_an_adopted_run_without_a_call_waits_for_its_agent_and_for_no_worker() -> None:
    [reason] = reasons(adopted_run())
    assert reason.what.startswith("an agent outside carries out step agent") and "DELETE /v1/runs" in reason.todo


def test_calls_of_an_adopted_run_at_its_ceiling_are_one_reason_until_it_is_raised() -> None:
    held = [message for number in range(5) for message in held_call(f"c{number}")]
    [reason] = reasons(adopted_run(*held))
    assert AT_CEILING in reason.what and reason.what.endswith("so are 4 calls before it") and "topup" in reason.todo
    resumed = [("model_gateway", "doors", CallResumed(call_id=f"c{number}")) for number in range(5)]
    [reason] = reasons(adopted_run(*held, *resumed))
    assert "no call of it is under way" in reason.what, "its agent was refused, and has not called again"
    end, same = TaskEnded(status="succeeded", result=Result(), ended_unix_ms=9), TaskEnded(status="succeeded")
    told = reasons(adopted_run(*held, *resumed, ("planner", "gateway", end), ("planner", "doors", same)))
    assert [one.kind for one in told] == ["ended"]
