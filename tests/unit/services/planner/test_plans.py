"""Drafts that cannot be read, plans that nobody checks, titles for people."""

import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bulkhead.plans import plans
from bulkhead_contracts import bounds
from bulkhead_contracts.model import ModelCallReplied, ModelCallRequested
from bulkhead_contracts.plan import Plan, PlanAdopted, PlanRejected, PlanStep
from bulkhead_contracts.result import Completeness, Omission, Result
from bulkhead_contracts.step import StepAssigned, StepFinished
from bulkhead_contracts.task import StepEnded, TaskEnded
from bulkhead_contracts.tool import ToolSpec
from bulkhead_services.planner import drafts
from bulkhead_services.planner.core import Planner
from tests.playbook import Playbook
from tests.unit.services.planner.test_playbook import draft, submit

WHOLE = draft({"id": "a", "title": "Look it up"}, {"id": "b", "inputs": ["a"]})


@pytest.fixture
def play() -> Playbook:
    return Playbook(Planner())


def answers(play: Playbook, text: str, call: str = "plan-1-1", **more) -> None:
    play.hears(
        ModelCallReplied(
            call_id=call, outcome="answered", content=play.add_content(text), prompt_id="planner.draft", **more
        ),
        sender="model_gateway",
    )


# Drafts


@pytest.mark.parametrize(
    "more",
    [
        {},
        {"finish": "length"},
        {
            "finish": "length",
            "completeness": Completeness.with_omissions(
                Omission(reason="truncated", what="the model's answer", detail="the model reached its output limit")
            ),
        },
    ],
    ids=["unsaid", "finish", "completeness"],
)
@pytest.mark.parametrize("length", [20, len(WHOLE) - 1])
def test_a_plan_that_was_cut_off_is_told_as_such(play, more, length):
    submit(play)
    for number in range(1, bounds.MAX_PLAN_DRAFTS + 1):
        answers(play, WHOLE[:length], f"plan-1-{number}", **more)
        (note,) = play.only_output(PlanRejected).notes
        assert note.code == "plan_cut_off" and "shorter" in note.message and f"{length} characters" in note.message
        assert ("output limit" in note.message) == bool(more) and "EOF" not in note.message
        if number < bounds.MAX_PLAN_DRAFTS:
            (notes,) = [one for one in play.only_output(ModelCallRequested).parts if one.kind == "notes"]
            assert "cut off" in notes.text, "the model must learn what to do better"
    (warning,) = play.only_output(PlanAdopted).plan.notes
    assert "cut off" in warning.message


@pytest.mark.parametrize(
    "text, said",
    [
        ("", "is empty"),
        ("  \n", "is empty"),
        ("Sure! Here it is", "is not JSON"),
        ("```json\n{}\n```", "is not JSON"),
        ('{"steps": []}', "steps: "),
    ],
)
def test_what_is_no_plan_is_told_in_words(text, said):
    steps, (note,) = drafts.parse(text)
    assert not steps and note.code == "unreadable_plan" and said in note.message
    assert not note.message.startswith(":")


@pytest.mark.parametrize(
    "text, code, said",
    [
        ("", "unreadable_plan", "the answer is empty; answer with the JSON object of the plan"),
        ("Sure! [Here", "unreadable_plan", "the answer is not JSON; answer with the plan's JSON object alone"),
        ('{"steps": nonsense}', "unreadable_plan", "the answer is not JSON; answer with the plan's JSON object alone"),
        ('{"steps": [{"id": "a", "instru', "plan_cut_off", "the plan was cut off after 30 characters"),
        ('{"steps": [{"id": "\\"', "plan_cut_off", "the plan was cut off after 21 characters"),
        ('{"steps": []}', "unreadable_plan", "steps: Tuple should have at least 1 item after validation, not 0"),
        ('{"steps": 7}', "unreadable_plan", "steps: Input should be a valid array"),
        ("{}", "unreadable_plan", "steps: Field required"),
    ],
)
def test_nothing_is_said_in_the_words_of_a_parser(text, code, said):
    _, (note, *_) = drafts.parse(text)
    assert (note.code, note.message[: len(said)]) == (code, said)


def test_a_whole_plan_of_a_cut_reply_is_read(play):
    """What is missing may be the words after it."""
    submit(play)
    answers(play, WHOLE, finish="length")
    assert len(play.only_output(PlanAdopted).plan.steps) == 2


# Noops


NOOP = PlanStep(id="n", title="", instruction="echo", kind="noop")
AFTER = PlanStep(id="a", title="", instruction="build on it", acceptance="says so", inputs=("n",))


def finishes(play: Playbook, step: str, **result) -> None:
    play.hears(
        StepFinished(step_id=step, attempt=1, plan_version=1, result=Result(summary="echo", **result)), sender="worker"
    )


def test_a_noop_that_nobody_checked_says_so_up_to_the_answer(play):
    submit(play, plan=Plan(steps=(NOOP,)))
    (note,) = play.only_output(PlanAdopted).plan.notes
    assert (note.severity, note.code, note.step_id) == ("warning", "not_checked", "n")
    finishes(play, "n")
    for result in (play.only_output(StepEnded).result, play.only_output(TaskEnded).result):
        assert result.standing == "degraded" and "nobody checks" in result.standing_reason
    play.replays()


def test_what_is_built_on_an_unchecked_noop_gets_it_as_degraded(play):
    submit(play, plan=Plan(steps=(NOOP, AFTER)))
    finishes(play, "n", standing="degraded", standing_reason="an older reason")
    (given_input,) = play.only_output(StepAssigned).inputs
    assert given_input.result.standing == "degraded"
    assert "step n is a noop" in given_input.result.standing_reason and "older" in given_input.result.standing_reason


def test_with_checks_off_a_noop_is_as_good_as_it_says(play):
    submit(play, check=False, plan=Plan(steps=(NOOP,)))
    assert play.only_output(PlanAdopted).plan.notes == ()
    finishes(play, "n")
    assert play.only_output(TaskEnded).result.standing == "ok"


# Titles


@pytest.mark.parametrize(
    "title, shown",
    [
        ("Größe der Rückerstattung für Zürich–Köln prüfen", "Größe der Rückerstattung für Zürich–Köln prüfen"),
        ("払い戻しはいくらですか。", "払い戻しはいくらですか。"),
        ("  two\n\tlines\x00 ", "two lines"),
        ("x" * 300, "x" * (bounds.MAX_TITLE_CHARS - 1) + "…"),
        ("word " * 60, ("word " * 40).strip() + "…"),
        ("short " + "x" * 300, "short " + "x" * (bounds.MAX_TITLE_CHARS - 7) + "…"),
    ],
)
def test_a_title_keeps_its_characters_and_is_cut_between_words(title, shown):
    (step,), notes = drafts.parse(draft({"id": "a", "title": title}))
    assert step.title == shown and not notes


@given(st.text(max_size=400), st.integers(2, 80))
def test_a_heading_fits_and_begins_as_its_text_does(text, most):
    shown = plans.cut_heading(text, most)
    assert len(shown) <= most and "\n" not in shown and plans.cut_heading(shown, most) == shown
    line = " ".join("".join(char if char.isprintable() else " " for char in text).split())
    if shown != line:
        kept = shown.removesuffix("…")
        assert shown.endswith("…") and line.startswith(kept)
        assert not kept or not unicodedata.combining(line[len(kept)]), "a character is not torn from its accent"


# Flows


def flowing(**changes) -> list[str]:
    flow = {"tool": "calculate", "argument": "/a", "step_id": "a", "from_tool": "look", "field": "/n"} | changes
    given = {"title": "t", "instruction": "i", "acceptance": "x"}
    last = PlanStep(id="b", inputs=("a",), tools=("calculate",), flows=(flow,) * changes.pop("times", 1), **given)
    found = plans.check_plan(
        (PlanStep(id="a", **given), last), (ToolSpec(name="calculate", description="", parameters_json="{}"),)
    )
    return [note.code for note in found]


def test_a_flow_goes_from_a_step_of_the_plan_to_a_tool_of_its_step_and_fits_its_grant():
    assert flowing() == []
    assert flowing(step_id="c") == flowing(tool="pay") == ["unknown_flow"]
    assert set(flowing(times=32)) == {"too_many_flows"}


def test_a_step_knows_the_flows_out_of_its_results_too():
    flow = {"tool": "pay", "argument": "/to", "step_id": "a", "from_tool": "look", "field": "/iban"}
    first, last = (
        PlanStep(id="a", title="t", instruction="i"),
        PlanStep(id="b", title="t", instruction="i", flows=(flow,)),
    )
    assert plans.flows_of(first, (first, last)) == plans.flows_of(last, (first, last)) == last.flows
