"""The draft of a plan: what the model is told of many tools, and what its reply says of itself."""

import pytest

from bulkhead_contracts import bounds
from bulkhead_contracts.model import ModelCallReplied, ModelCallRequested
from bulkhead_contracts.result import Completeness, Omission
from bulkhead_contracts.task import StepEnded, TaskEnded
from bulkhead_contracts.tool import ToolSpec
from bulkhead_services.planner.core import Planner
from tests.playbook import Playbook
from tests.unit.services.planner.test_playbook import accepts, answers, draft, rejects, submit

ONE = draft({"id": "a"})


@pytest.fixture
def play() -> Playbook:
    return Playbook(Planner())


def drafted_by_a_fallback(play: Playbook, **said: object) -> None:
    body = ModelCallReplied(
        call_id="plan-1-1", outcome="answered", content=play.add_content(ONE), prompt_id="planner.draft"
    )
    play.hears(body.model_copy(update=said), sender="model_gateway")


@pytest.mark.parametrize(("count", "chars"), [(40, 500), (bounds.MAX_TOOLS, bounds.MAX_REASON_CHARS)])
def test_a_model_is_told_of_as_many_tools_as_a_task_may_have(play, count, chars):
    tools = tuple(
        ToolSpec(name=f"tool_{number}", description=f"{number} {'x' * chars}"[:chars], parameters_json="{}")
        for number in range(count)
    )
    submit(play, tools=tools)
    rows = [
        row
        for part in play.only_output(ModelCallRequested).parts
        if part.kind == "tools"
        for row in part.text.split("\n")
    ]
    assert rows == [f"{tool.name}: {tool.description} (read)" for tool in tools]


def test_an_answer_by_a_plan_that_a_fallback_drafted_stands_as_degraded(play):
    submit(play)
    drafted_by_a_fallback(play, standing="degraded", standing_reason="a fallback answered")
    accepts(play, "a")
    result = play.only_output(TaskEnded).result
    assert (result.standing, result.standing_reason) == ("degraded", "the plan: a fallback answered")
    assert play.only_output(StepEnded).result == result
    play.replays()


def test_an_answer_says_what_the_model_did_not_see_that_drafted_its_plan(play):
    submit(play)
    cut = Completeness.with_omissions(Omission(reason="pruned", what="2 parts, which the model did not see"))
    drafted_by_a_fallback(play, completeness=cut)
    accepts(play, "a")
    [omission] = play.only_output(TaskEnded).result.completeness.omissions
    assert omission.what == "the plan: 2 parts, which the model did not see"


def test_a_plan_that_was_replaced_says_nothing_of_the_answer(play):
    submit(play)
    drafted_by_a_fallback(play, standing="degraded", standing_reason="a fallback answered")
    for attempt in range(1, bounds.MAX_STEP_ATTEMPTS + 1):
        rejects(play, "a", attempt)
    answers(play, draft({"id": "b"}), "plan-2-2")
    accepts(play, "b", version=2)
    assert play.only_output(TaskEnded).result.standing == "ok"
