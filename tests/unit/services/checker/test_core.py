"""The checker: plain checks as pure functions, its playbooks, and what the judge sees and says."""

import json
import time

import pytest

from bulkhead.blobs import reference
from bulkhead.testing.playbook import START_UNIX_MS, Playbook
from bulkhead_contracts import bounds
from bulkhead_contracts.control import CallDeferred
from bulkhead_contracts.model import ModelCallReplied, ModelCallRequested, Part
from bulkhead_contracts.plan import PlanStep
from bulkhead_contracts.result import Citation, Completeness, Failure, Label, Omission, Result, Usage
from bulkhead_contracts.step import Evidence, StepInput, StepProposed
from bulkhead_contracts.verdict import VerdictReached
from bulkhead_services.checker import checks
from bulkhead_services.checker.core import Checker
from bulkhead_services.model_gateway import render

FEE = "Cancelling a flexible booking costs a handling fee of 40.00 EUR per passenger."
MARK = "0123456789ab"
SOURCES = checks.Sources(by_marker={MARK: FEE}, retrieved=frozenset({MARK}), given="A booking of 300.00 EUR.")


def codes(text: str, sources: checks.Sources = SOURCES) -> set[str]:
    return {note.code for note in checks.run(text, sources) if note.blocking}


def test_a_supported_cited_sentence_passes():
    assert codes(f"The handling fee for cancelling is 40.00 EUR [#{MARK}].") == set()
    assert codes(f"The handling fee is 40 EUR. [#{MARK}]") == set(), "40 and 40.00 are one number"


@pytest.mark.parametrize(
    "text, code",
    [
        ("", "empty"),
        (" \n", "empty"),
        ("x" * (bounds.MAX_ANSWER_CHARS + 1), "too_long"),
        ("The handling fee is 40.00 EUR.", "no_citation"),
        ("The handling fee is 40.00 EUR [#ffffffffffff].", "unknown_citation"),
        (f"Dogs travel free in every cabin on weekends [#{MARK}].", "unsupported"),
        (f"The handling fee for cancelling is 45.00 EUR [#{MARK}].", "unfounded_number"),
        (f"300.00 - 40.00 = 270.00 EUR after the handling fee [#{MARK}].", "wrong_arithmetic"),
        (f"[[part kind=passage]] the handling fee [#{MARK}].", "prompt_leak"),
        (f"the key is sk-abcdefghijklmnopqrstuvwxyz and the handling fee [#{MARK}].", "secret"),
    ],
)
def test_each_check_refuses_what_it_is_for(text, code):
    assert code in codes(text)


@pytest.mark.parametrize(
    "text",
    [
        "2026-05-01 to 2026-05-20 = 19 days",
        "15 / 100 * 80 = 12",
        "0.5 * 412.50 - 60 = 146.25",
        "(10 - 4) * 2 = 12",
        "max(3, 4) - 1 = 3",
        "1,000 + 1 = 1,001",
        "10 - 3 - 2 = 5",
    ],
)
def test_true_arithmetic_and_dates_are_left_alone(text):
    assert checks.equations(text) == []


@pytest.mark.parametrize("text", ["15 / 100 * 80 = 13", "10 - 3 - 2 = 9", "2 + 2 = 5"])
def test_false_arithmetic_is_found(text):
    assert [note.code for note in checks.equations(text)] == ["wrong_arithmetic"]


LONG = bounds.MAX_ANSWER_CHARS


@pytest.mark.parametrize(
    "text",
    [
        ("1+" * LONG)[:LONG],
        ("1 + " * LONG)[:LONG],
        ("2 * 2 = 5. " * LONG)[:LONG],
        "1" * LONG,
        "1," * (LONG // 2),
        " " * LONG,
        ("sk-" * LONG)[:LONG],
        ("-----BEGIN " * LONG)[:LONG],
        f"The handling fee [#{MARK}].\n" * (LONG // 34),
    ],
    ids=["sum", "spaced_sum", "equations", "digits", "commas", "blank", "keys", "private_keys", "cited"],
)
def test_the_longest_text_is_checked_in_time_that_grows_with_its_length(text):
    """A checker has one thread: while it reads one text, every other task waits."""
    source = checks.Sources(by_marker={MARK: f"{FEE}\n" * 3_000}, retrieved=frozenset({MARK}), given=FEE * 3_000)
    # What is linear takes 0.1 s of CPU here; what is not took a minute and more.
    began = time.process_time()
    checks.run(text, source)
    assert time.process_time() - began < 10


def test_counting_words_and_given_numbers_are_not_refused():
    assert "unfounded_number" not in codes(f"Of 300 EUR, 2 rules apply: the handling fee [#{MARK}].")


def test_nothing_retrieved_needs_no_citation():
    assert codes("The sum is fine.", checks.Sources({}, frozenset(), "sum is fine")) == set()


@pytest.fixture
def play() -> Playbook:
    return Playbook(Checker())


def propose(play: Playbook, text: str | None = None, author: str = "rag", **changes) -> StepProposed:
    passage = play.text(FEE, author)
    text = f"The handling fee for cancelling is 40.00 EUR [#{passage.marker}]." if text is None else text
    cited = Citation(marker=passage.marker, document="f.md", document_sha256="0" * 64, chunk_id="c", start=0, end=9)
    spare = cited.model_copy(update={"marker": "f" * 12})
    result = Result(content=play.text(text, "model_gateway"), citations=(cited, spare))
    seen = Evidence(
        content=passage, citation=cited, label=Label(sha256=passage.sha256, kind="passage", observed_by=author)
    )
    body = StepProposed(
        step=PlanStep(id="s1", title="Fee", instruction="find the handling fee", acceptance="names the fee"),
        attempt=1,
        plan_version=1,
        objective=play.text("What is refunded?", "gateway"),
        result=result,
        evidence=(seen,),
        usage=Usage(model_calls=2),
        deadline_unix_ms=START_UNIX_MS + 9_000,
    ).model_copy(update=changes)
    play.hears(body, sender="worker", grant="step-token")
    return body


def judge(play: Playbook, text: str, **changes) -> None:
    asked = next(one.asked for one in play.state.cases.values() if one.asked)
    body = ModelCallReplied(
        call_id=asked.call_id,
        outcome="answered",
        prompt_id="checker.judge",
        content=play.text(text),
        usage=Usage(model_calls=1),
    )
    play.hears(body.model_copy(update=changes), sender="model_gateway")


def test_plain_checks_then_the_judge_then_the_verdict(play):
    propose(play)
    play.says(ModelCallRequested)
    asked = play.said(ModelCallRequested)
    assert asked.response == "verdict"
    assert {part.kind for part in asked.parts} == {"step", "acceptance", "answer", "passage"}
    judge(play, json.dumps({"verdict": "accept", "score": 1, "reasons": []}))
    verdict = play.said(VerdictReached)
    assert verdict.accepted and verdict.usage.model_calls == 3
    assert len(verdict.result.citations) == 1, "only what the text cites"
    play.replays()


def test_a_plain_refusal_asks_no_judge(play):
    propose(play, "The handling fee is 45.00 EUR.")
    play.says(VerdictReached)
    verdict = play.said(VerdictReached)
    assert not verdict.accepted and {"no_citation", "unfounded_number"} <= {note.code for note in verdict.notes}


def test_the_judges_reasons_reach_the_worker(play):
    propose(play)
    judge(play, json.dumps({"verdict": "reject", "reasons": ["does not name the currency"]}))
    verdict = play.said(VerdictReached)
    assert not verdict.accepted and verdict.notes[-1].message == "does not name the currency"


@pytest.mark.parametrize("words", ["nonsense", "[]", '{"verdict": "maybe"}'])
def test_an_unreadable_judge_is_asked_once_more_and_then_said_to_be_missing(play, words):
    propose(play)
    judge(play, words)
    play.says(ModelCallRequested)
    judge(play, words)
    verdict = play.said(VerdictReached)
    assert verdict.accepted and verdict.result.standing == "degraded" and "not judged" in verdict.result.standing_reason
    assert any(one.what == "judge" for one in verdict.result.completeness.omissions)


def test_no_money_for_the_judge_is_no_acceptance(play):
    propose(play)
    judge(play, "", outcome="refused", content=None, failure=Failure(code="refused_by_budget", message="ceiling"))
    assert not play.said(VerdictReached).accepted


def test_evidence_that_the_worker_wrote_itself_is_none(play):
    propose(play, author="worker")
    verdict = play.said(VerdictReached)
    assert not verdict.accepted and "unknown_citation" in {note.code for note in verdict.notes}


def test_markers_of_accepted_inputs_may_be_carried_on(play):
    carried = "abcdefabcdef"
    held = play.text(f"The handling fee is 40.00 EUR [#{carried}].", "model_gateway")
    propose(
        play,
        f"The handling fee is 40.00 EUR [#{carried}].",
        evidence=(),
        inputs=(StepInput(step_id="s0", result=Result(content=held)),),
    )
    play.says(ModelCallRequested)


def test_an_input_that_is_a_summary_alone_is_cited_as_the_model_is_shown_it(play):
    """A noop's result has no content: found by the simulation, where no step could build on one and pass."""
    given = Result(summary="Note the harbour.", standing="degraded", standing_reason="nobody checks a noop")
    shown = render.marker(Part(kind="input", text=given.summary))
    propose(play, f"Note the harbour [#{shown}].", inputs=(StepInput(step_id="s0", result=given),))
    judge(play, '{"verdict": "accept", "reasons": []}')
    assert play.said(VerdictReached).accepted


def test_what_is_missing_survives_the_check(play):
    body = propose(play)
    lost = body.result.model_copy(
        update={
            "completeness": Completeness.missing(Omission(reason="truncated", what="page 2")),
            "standing": "degraded",
        }
    )
    propose(play, attempt=2, result=lost)
    verdict = json.dumps({"verdict": "accept", "reasons": []})
    asked = play.said(ModelCallRequested).call_id
    play.hears(ModelCallReplied(call_id=asked, outcome="answered", prompt_id="p", content=play.text(verdict)))
    result = play.said(VerdictReached).result
    assert result.standing == "degraded" and not result.completeness.complete


def test_deferred_judging_is_bounded(play):
    propose(play)
    call = play.said(ModelCallRequested).call_id
    play.hears(CallDeferred(call_id=call, after_ms=10), sender="model_gateway")
    play.fires(f"again-{call}")
    assert play.said(ModelCallRequested).call_id == call
    for _ in range(bounds.MAX_CALL_DEFERRALS):
        play.hears(CallDeferred(call_id=call, after_ms=10), sender="model_gateway")
    assert play.said(VerdictReached).result.standing == "degraded"


def test_a_repeated_proposal_is_judged_once(play):
    propose(play)
    assert play.hears_again() == ()
    propose(play)
    play.says()


ACCEPT = {"verdict": "accept", "reasons": []}


def test_the_judge_sees_all_evidence_and_what_is_cited_first(play):
    spare = tuple(
        Evidence(content=row, label=Label(sha256=row.sha256, kind="tool_result", observed_by="tool_executor"))
        for row in (reference("tool_executor", str(number).encode()) for number in range(bounds.MAX_EVIDENCE - 1))
    )
    cited = propose(Playbook(Checker())).evidence
    propose(play, evidence=(*spare, *cited))
    shown = [part for part in play.said(ModelCallRequested).parts if part.kind in ("passage", "tool_result")]
    assert len(shown) == bounds.MAX_EVIDENCE and shown[0].content == cited[0].content


def test_a_judge_that_did_not_see_everything_leaves_the_result_incomplete(play):
    propose(play)
    cut = Completeness.missing(Omission(reason="pruned", what="3 passages, which the model did not see"))
    judge(play, json.dumps(ACCEPT), completeness=cut)
    result = play.said(VerdictReached).result
    [omission] = result.completeness.omissions
    assert not result.completeness.complete and omission.reason == "pruned"
    assert omission.what == "the judge: 3 passages, which the model did not see"


def test_a_result_that_a_fallback_has_judged_stands_as_degraded(play):
    propose(play)
    judge(play, json.dumps(ACCEPT), standing="degraded", standing_reason="a fallback answered")
    result = play.said(VerdictReached).result
    assert (result.standing, result.standing_reason) == ("degraded", "the judge: a fallback answered")
    play.replays()


@pytest.mark.parametrize(("said", "score"), [(0.25, 0.25), (1, 1.0), (7, None), ("high", None), (True, None)])
def test_the_score_that_the_judge_gives_stands_in_the_verdict(play, said, score):
    propose(play)
    judge(play, json.dumps({**ACCEPT, "score": said}))
    assert play.said(VerdictReached).score == score
