"""The memory of a session: what is shown, when a summary pays, and what a summary says that it leaves out."""

import itertools

from bulkhead.plans import plans
from bulkhead_contracts import bounds
from bulkhead_contracts.result import Completeness, Omission, Result
from bulkhead_contracts.session import FactPinned, SessionSummary
from bulkhead_contracts.step import StepInput
from bulkhead_contracts.task import SessionTurn
from bulkhead_services.gateway.chat_sessions import memory
from bulkhead_services.gateway.chat_sessions.memory import PastTurn

WINDOW = 2


def turns(count: int, *, words: int = 40, first: int = 1, model_calls: int = 2) -> list[PastTurn]:
    return [
        PastTurn(number, f"Question {number}?", "word " * words, model_calls=model_calls)
        for number in range(first, first + count)
    ]


def summary(text: str = "- It is EUR 12.", through: int = 8, **more: object) -> SessionSummary:
    return SessionSummary.model_validate({"task": "t1", "through": through, "text": text, **more})


def pinned(text: str, turn: int = 0) -> FactPinned:
    return FactPinned(fact_id="f", text=text, turn=turn, person="ann", pinned_unix_ms=1)


def test_facts_come_first_and_the_turns_after_the_summary_last() -> None:
    kept = summary(
        result=Result(completeness=Completeness.with_omissions(Omission(reason="summarised", what="1 to 8")))
    )
    facts, said = memory.compose_memory([pinned("Mira is ten."), pinned("It rains.", 3)], kept, turns(2, first=9))
    assert facts.text == "- Mira is ten.\n- It rains. (from the answer of turn 3)"
    assert said.text.index("EUR 12") < said.text.index("Question 9?") < said.text.index("Question 10?")
    assert [row.reason for row in said.completeness.omissions] == ["summarised"], "it never stands there silently"
    assert memory.compose_memory([], None, []) == ()


def test_what_is_left_out_is_said() -> None:
    long_answer = PastTurn(1, "Tell it all.", "x" * (memory.MAX_ANSWER_CHARS + 1))
    [said] = memory.compose_memory([], None, [long_answer, PastTurn(2, "Why?", reason="cancelled by ann")], lost=3)
    assert {row.reason for row in said.completeness.omissions} == {"pruned", "truncated"}
    assert "(no answer: cancelled by ann)" in said.text and "(cut)" in said.text
    many = turns(40, words=400)
    [said] = memory.compose_memory([], None, many)
    assert memory.estimate_tokens(said.text) <= memory.MAX_SHOWN_TOKENS + many[0].tokens
    assert not said.completeness.complete and "Question 40?" in said.text and "Question 1?" not in said.text


def test_markers_of_other_tasks_are_not_shown() -> None:
    [said] = memory.compose_memory([], None, [PastTurn(1, "How much?", "EUR 12 [#0123456789ab].")])
    assert "EUR 12." in said.text and "#0123456789ab" not in said.text


def test_a_summary_is_made_only_where_it_pays_for_itself() -> None:
    assert memory.last_summarised_turn(turns(WINDOW), None, WINDOW) == 0, "the window is never summarised"
    assert memory.last_summarised_turn(turns(5, words=2), None, WINDOW) == 0, "short turns cost less than a summary"
    assert memory.last_summarised_turn(turns(20), None, WINDOW) == 18
    assert memory.last_summarised_turn(turns(4, words=2_000), None, WINDOW) == 2, "two long ones pay at once"


def test_it_pays_sooner_the_more_often_the_memory_is_read() -> None:
    def first_summary(model_calls: int) -> int:
        return next(n for n in range(1, 100) if memory.last_summarised_turn(turns(n, model_calls=model_calls), None, 2))

    assert first_summary(4) < first_summary(1)


def test_no_summary_follows_right_upon_another() -> None:
    """Over a long conversation their cost stays below what they save."""
    through, made, previous = 0, [], None
    for number in range(1, 101):
        begun = memory.last_summarised_turn(turns(number - through, first=through + 1), previous, WINDOW)
        if begun:
            previous, through = summary("x" * 400, begun), begun
            made.append(number)
    gaps = [later - earlier for earlier, later in itertools.pairwise(made)]
    assert 5 < len(made) < 34 and min(gaps) >= 3, made


def test_a_summary_names_the_figures_that_it_lacks() -> None:
    replaced = (
        "Turn 1, the person: I am 47.\nTurn 1, the answer: “It is EUR 12.”\n\nTurn 2, the person: On 12 May 2014."
    )
    replaced += " Words " * 30
    judged = memory.judge_summary(summary("- It is EUR 12 on 12 May."), replaced, summary(lost_figures=("99",)))
    assert judged.used and judged.lost_figures == ("47", "2014", "99")
    [mark] = judged.result.completeness.omissions
    assert (mark.reason, mark.what, mark.detail) == ("summarised", "turns 1 to 8", "not in the summary: 47, 2014, 99")


def test_marks_of_earlier_summaries_do_not_pile_up() -> None:
    earlier = Completeness.with_omissions(
        *(Omission(reason="summarised", what=f"turns 1 to {n}") for n in range(4)),
        *(Omission(reason="truncated", what=f"answer of turn {n}") for n in range(9)),
    )
    judged = memory.judge_summary(summary(result=Result(completeness=earlier)), "words " * 90, None)
    reasons = [row.reason for row in judged.result.completeness.omissions]
    assert reasons == ["summarised"] + ["truncated"] * memory.MAX_OLD_OMISSIONS


def test_a_summary_that_is_no_shorter_or_empty_is_not_used() -> None:
    for text in ("", "  ", "word " * 90):
        assert not memory.judge_summary(summary(text), "word " * 90, None).used


def test_a_turn_is_one_step_on_results_that_come_with_the_plan() -> None:
    shown = StepInput(step_id="conversation", title="said", result=Result(summary="said"))
    plan = memory.plan_turn(SessionTurn(session="s1", number=2, memory=(shown,)), "And dogs?", ())
    assert [step.id for step in plan.steps] == ["conversation", "answer"] and plan.steps[-1].inputs == ("conversation",)
    assert not [note for note in plans.check_plan(plan.steps, (), checked=True) if note.severity == "error"]
    first = memory.plan_turn(SessionTurn(session="s1", number=1), "x" * (bounds.MAX_INSTRUCTION_CHARS + 1), ())
    assert [step.id for step in first.steps] == ["answer"], "a message too long for a step is read from the objective"
