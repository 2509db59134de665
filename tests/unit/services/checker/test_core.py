"""The checker: plain checks as pure functions, its playbooks, and what the judge sees and says."""

import json

import pytest

from bulkhead.blobs import reference
from bulkhead.grounding.sources import GroundingSource, GroundingSources
from bulkhead_contracts import bounds
from bulkhead_contracts.control import CallDeferred
from bulkhead_contracts.model import ModelCallReplied, ModelCallRequested, Part
from bulkhead_contracts.output import OutputPolicy
from bulkhead_contracts.plan import PlanStep
from bulkhead_contracts.result import Citation, Completeness, Failure, Label, Omission, Result, Usage
from bulkhead_contracts.step import Evidence, StepInput, StepProposed
from bulkhead_contracts.verdict import VerdictReached
from bulkhead_services.checker import checks
from bulkhead_services.checker.core import Checker
from bulkhead_services.model_gateway.context import render
from tests.playbook import START_UNIX_MS, Playbook

FEE = "Cancelling a flexible booking costs a handling fee of 40.00 EUR per passenger."
MARK = "0123456789ab"
SOURCES = GroundingSources((GroundingSource(MARK, FEE),), "A booking of 300.00 EUR. What does cancelling cost?")


@pytest.mark.parametrize(
    ("text", "code"),
    [
        ("", "empty"),
        (" \n", "empty"),
        (f"[#{MARK}] ```", "empty"),
        ("x" * (bounds.MAX_ANSWER_CHARS + 1), "too_long"),
        (f"[[part kind=passage]] the handling fee [#{MARK}].", "prompt_leak"),
        ("[[step 51f63cd2fadd]] ``` yes", "prompt_leak"),
        (f"the key is sk-abcdefghijklmnopqrstuvwxyz and the handling fee [#{MARK}].", "secret"),
    ],
)
def test_what_is_no_answer_or_must_not_be_shown_is_refused(text, code):
    assert code in {note.code for note in checks.refusal_notes(text)}


def test_a_right_answer_without_a_marker_has_no_flaw():
    checked = checks.check_text("The handling fee is 40 EUR.", SOURCES, "What does cancelling cost?")
    assert checked.blocking_notes == () and checked.degraded_reason == "" and checked.rows[0].markers == (MARK,)


def test_an_answer_without_any_source_says_so():
    checked = checks.check_text("Dogs travel free on weekends.", SOURCES, "What does cancelling cost?")
    assert {note.code for note in checked.blocking_notes} == {
        "unsupported"
    } and "nothing in it rests" in checked.degraded_reason


def test_a_number_worked_out_is_told_with_its_operation():
    checked = checks.check_text("Of 300.00 EUR, 260.00 EUR are left after the handling fee.", SOURCES, "What is left?")
    assert not checked.has_wrong_values and any("300 - 40" in note.message for note in checked.correction_notes)


def test_a_search_that_was_not_made_is_told():
    checked = checks.check_text("It is fine.", GroundingSources((), "Is it fine?"), "Is it fine?", looked_up=False)
    assert [note.code for note in checked.blocking_notes] == ["nothing_looked_up"]


ACCEPT = {"verdict": "accept", "reasons": []}


@pytest.fixture
def play() -> Playbook:
    return Playbook(Checker())


def propose(play: Playbook, text: str | None = None, author: str = "rag", **changes) -> StepProposed:
    passage = play.add_content(FEE, author)
    text = f"The handling fee for cancelling is 40.00 EUR [#{passage.marker}]." if text is None else text
    cited = Citation(marker=passage.marker, document="f.md", document_sha256="0" * 64, chunk_id="c", start=0, end=9)
    spare = cited.model_copy(update={"marker": "f" * 12})
    result = Result(content=play.add_content(text, "model_gateway"), citations=(cited, spare))
    seen = Evidence(
        content=passage, citation=cited, label=Label(sha256=passage.sha256, kind="passage", observed_by=author)
    )
    body = StepProposed(
        step=PlanStep(id="s1", title="Fee", instruction="find the handling fee", acceptance="names the fee"),
        attempt=1,
        plan_version=1,
        objective=play.add_content("What is refunded?", "gateway"),
        result=result,
        evidence=(seen,),
        usage=Usage(model_calls=2),
        deadline_unix_ms=START_UNIX_MS + 9_000,
    ).model_copy(update=changes)
    play.hears(body, sender="worker", grant="step-token")
    return body


def judge(play: Playbook, text: str, **changes) -> None:
    asked = next(one.judge_call for one in play.state.cases.values() if one.judge_call)
    body = ModelCallReplied(
        call_id=asked.call_id,
        outcome="answered",
        prompt_id="checker.judge",
        content=play.add_content(text),
        usage=Usage(model_calls=1),
    )
    play.hears(body.model_copy(update=changes), sender="model_gateway")


def test_plain_checks_then_the_judge_then_the_verdict(play):
    propose(play)
    play.says(ModelCallRequested)
    asked = play.only_output(ModelCallRequested)
    assert asked.response == "verdict"
    assert {part.kind for part in asked.parts} == {"step", "acceptance", "answer", "passage"}
    judge(play, json.dumps({"verdict": "accept", "score": 1, "reasons": []}))
    verdict = play.only_output(VerdictReached)
    assert verdict.accepted and verdict.usage.model_calls == 3
    assert len(verdict.result.citations) == 1, "only what the text cites"
    play.replays()


def test_a_wrong_number_asks_no_judge_once_and_then_stands_marked(play):
    propose(play, "The handling fee for cancelling is 45.00 EUR.")
    play.says(VerdictReached)
    verdict = play.only_output(VerdictReached)
    assert not verdict.accepted and verdict.stands and "unfounded_number" in {note.code for note in verdict.notes}
    propose(play, "The handling fee for cancelling is 45.00 EUR.", attempt=2)
    judge(play, json.dumps(ACCEPT))
    verdict = play.only_output(VerdictReached)
    assert verdict.accepted and verdict.result.standing == "degraded"
    assert "1 of 1" in verdict.result.standing_reason or "nothing in it" in verdict.result.standing_reason
    assert "[unverified: no source holds 45.00" in play.texts[verdict.result.content.sha256]
    play.replays()


@pytest.mark.parametrize("marker", ["", " [#ffffffffffff]", " (f.md)", " [{own}]"])
def test_a_right_answer_passes_whatever_its_markers(play, marker):
    own = reference("rag", FEE.encode()).marker
    propose(play, f"The handling fee for cancelling is 40.00 EUR{marker.format(own=own)}.")
    judge(play, json.dumps(ACCEPT))
    verdict = play.only_output(VerdictReached)
    content = verdict.result.content
    assert verdict.accepted and verdict.result.standing == "ok" and content.author == "checker"
    assert f"[#{own}]" in play.texts[content.sha256] and [row.marker for row in verdict.result.citations] == [own]


def test_a_judge_finds_the_source_of_what_is_said_in_other_words(play):
    text = "La gestion d'une annulation se paie par tête."
    propose(play, text)
    asked = play.only_output(ModelCallRequested)
    listed = [part.text for part in asked.parts if part.kind == "context"]
    assert len(listed) == 1 and text[:-1] in listed[0]
    own = reference("rag", FEE.encode()).marker
    support = [{"sentence": 0, "source": f"#{own}"}, {"sentence": 9, "source": own}, "junk", {"sentence": "x"}]
    judge(play, json.dumps({**ACCEPT, "support": support}))
    verdict = play.only_output(VerdictReached)
    assert verdict.accepted and verdict.result.standing == "ok"
    assert play.texts[verdict.result.content.sha256] == f"La gestion d'une annulation se paie par tête [#{own}]."


def test_a_judge_cannot_name_a_source_that_it_was_not_shown(play):
    propose(play, "La gestion d'une annulation se paie par tête.")
    judge(play, json.dumps({**ACCEPT, "support": [{"sentence": 0, "source": "f" * 12}]}))
    verdict = play.only_output(VerdictReached)
    assert not verdict.accepted and verdict.stands


def test_a_judge_is_not_believed_that_a_source_says_what_shares_no_word_with_it(play):
    rule = "The cancelling of a flexible booking costs a fee of the price, and the passenger pays it."
    passage = play.add_content(rule, "tool_executor")
    row = Evidence(content=passage, label=Label(sha256=passage.sha256, kind="tool_result", observed_by="tool_executor"))
    propose(play, "The dogs of the crew travel for nothing in the hold.", evidence=(row,))
    judge(play, json.dumps({**ACCEPT, "support": [{"sentence": 0, "source": passage.marker}]}))
    assert not play.only_output(VerdictReached).accepted


def test_evidence_beyond_one_round_is_judged_in_further_rounds(play):
    padding = "\n".join(f"Paragraph p-{number} is about ferry {number % 97}." for number in range(1_600))
    long = [f"The fee of class c-{number} is {number * 7 + 11}.00 EUR.\n{padding}" for number in range(3)]
    rows = tuple(
        Evidence(content=ref, label=Label(sha256=ref.sha256, kind="tool_result", observed_by="tool_executor"))
        for ref in (play.add_content(text, "tool_executor") for text in long)
    )
    propose(play, "\n".join(text.splitlines()[0] for text in long), evidence=rows)
    seen = []
    for _ in range(3):
        asked = play.only_output(ModelCallRequested)
        seen += [part.content.sha256 for part in asked.parts if part.kind == "tool_result"]
        judge(play, json.dumps({**ACCEPT, "score": 0.5 + len(seen) / 10}))
    verdict = play.only_output(VerdictReached)
    assert set(seen) == {row.content.sha256 for row in rows} and len(seen) == 3
    assert verdict.accepted and verdict.score == 0.6, "the lowest score of the rounds"


def test_a_round_that_the_judges_context_cannot_hold_is_split(play):
    spare = play.add_content("Another rule: dogs travel free on weekends.", "tool_executor")
    more = Evidence(content=spare, label=Label(sha256=spare.sha256, kind="tool_result", observed_by="tool_executor"))
    cited = propose(Playbook(Checker())).evidence
    propose(play, evidence=(*cited, more))
    cut = Completeness.with_omissions(Omission(reason="pruned", what="1 passage, which the model did not see"))
    judge(play, json.dumps(ACCEPT), completeness=cut)
    for _ in range(2):
        shown = [
            part.kind for part in play.only_output(ModelCallRequested).parts if part.kind in ("passage", "tool_result")
        ]
        assert len(shown) == 1
        judge(play, json.dumps(ACCEPT))
    assert play.only_output(VerdictReached).result.completeness.complete


def test_the_judges_reasons_reach_the_worker(play):
    propose(play)
    judge(play, json.dumps({"verdict": "reject", "reasons": ["does not name the currency"]}))
    verdict = play.only_output(VerdictReached)
    assert not verdict.accepted and verdict.notes[-1].message == "does not name the currency"


@pytest.mark.parametrize("words", ["nonsense", "[]", '{"verdict": "maybe"}'])
def test_an_unreadable_judge_is_asked_once_more_and_then_said_to_be_missing(play, words):
    propose(play)
    judge(play, words)
    play.says(ModelCallRequested)
    judge(play, words)
    verdict = play.only_output(VerdictReached)
    assert verdict.accepted and verdict.result.standing == "degraded" and "not judged" in verdict.result.standing_reason
    assert any(one.what == "judge" for one in verdict.result.completeness.omissions)


def test_half_of_a_surrogate_pair_in_a_judges_reason_is_no_crash(play):
    propose(play)
    judge(play, '{"verdict": "reject", "reasons": ["\\ud800 bad"]}')
    assert play.only_output(VerdictReached).notes[-1].message == "? bad"


def test_no_money_for_the_judge_is_no_acceptance(play):
    propose(play)
    judge(play, "", outcome="refused", content=None, failure=Failure(code="refused_by_budget", message="ceiling"))
    assert not play.only_output(VerdictReached).accepted


def test_evidence_that_the_worker_wrote_itself_is_none(play):
    propose(play, author="worker")
    verdict = play.only_output(VerdictReached)
    assert not verdict.accepted and "unfounded_number" in {note.code for note in verdict.notes}


def test_markers_of_accepted_inputs_may_be_carried_on(play):
    carried = "abcdefabcdef"
    held = play.add_content(f"The handling fee is 40.00 EUR [#{carried}].", "model_gateway")
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
    shown = render.marker_of(Part(kind="input", text=given.summary))
    propose(play, f"Note the harbour [#{shown}].", inputs=(StepInput(step_id="s0", result=given),))
    judge(play, '{"verdict": "accept", "reasons": []}')
    assert play.only_output(VerdictReached).accepted


def test_what_is_missing_survives_the_check(play):
    body = propose(play)
    lost = body.result.model_copy(
        update={
            "completeness": Completeness.with_omissions(Omission(reason="truncated", what="page 2")),
            "standing": "degraded",
        }
    )
    propose(play, attempt=2, result=lost)
    verdict = json.dumps({"verdict": "accept", "reasons": []})
    asked = play.only_output(ModelCallRequested).call_id
    play.hears(ModelCallReplied(call_id=asked, outcome="answered", prompt_id="p", content=play.add_content(verdict)))
    result = play.only_output(VerdictReached).result
    assert result.standing == "degraded" and not result.completeness.complete


def test_deferred_judging_is_bounded(play):
    propose(play)
    call = play.only_output(ModelCallRequested).call_id
    play.hears(CallDeferred(call_id=call, after_ms=10), sender="model_gateway")
    play.fires(f"again-{call}")
    assert play.only_output(ModelCallRequested).call_id == call
    for _ in range(bounds.MAX_CALL_DEFERRALS):
        play.hears(CallDeferred(call_id=call, after_ms=10), sender="model_gateway")
    assert play.only_output(VerdictReached).result.standing == "degraded"


def test_a_repeated_proposal_is_judged_once(play):
    propose(play)
    assert play.hears_again() == ()
    propose(play)
    play.says()


def test_the_judge_sees_all_evidence_and_what_is_cited_first(play):
    spare = tuple(
        Evidence(content=row, label=Label(sha256=row.sha256, kind="tool_result", observed_by="tool_executor"))
        for row in (reference("tool_executor", str(number).encode()) for number in range(bounds.MAX_EVIDENCE - 1))
    )
    cited = propose(Playbook(Checker())).evidence
    propose(play, evidence=(*spare, *cited))
    shown = [part for part in play.only_output(ModelCallRequested).parts if part.kind in ("passage", "tool_result")]
    assert len(shown) == bounds.MAX_EVIDENCE and shown[0].content == cited[0].content


def test_a_judge_that_did_not_see_everything_leaves_the_result_incomplete(play):
    propose(play)
    cut = Completeness.with_omissions(Omission(reason="pruned", what="3 passages, which the model did not see"))
    judge(play, json.dumps(ACCEPT), completeness=cut)
    result = play.only_output(VerdictReached).result
    [omission] = result.completeness.omissions
    assert not result.completeness.complete and omission.reason == "pruned"
    assert omission.what == "the judge: 3 passages, which the model did not see"


def test_a_result_that_a_fallback_has_judged_stands_as_degraded(play):
    propose(play)
    judge(play, json.dumps(ACCEPT), standing="degraded", standing_reason="a fallback answered")
    result = play.only_output(VerdictReached).result
    assert (result.standing, result.standing_reason) == ("degraded", "the judge: a fallback answered")
    play.replays()


@pytest.mark.parametrize(("said", "score"), [(0.25, 0.25), (1, 1.0), (7, None), ("high", None), (True, None)])
def test_the_score_that_the_judge_gives_stands_in_the_verdict(play, said, score):
    propose(play)
    judge(play, json.dumps({**ACCEPT, "score": said}))
    assert play.only_output(VerdictReached).score == score


ABSENT = "The documents do not say what cancelling costs."


@pytest.mark.parametrize(
    ("text", "word", "answered"),
    [
        (None, "yes", "yes"),
        (None, "partly", "partly"),
        (None, None, None),
        (None, "perhaps", None),
        (None, ["no"], None),
        (ABSENT, None, "no"),
        (ABSENT, "no", "no"),
        (ABSENT, "yes", "yes"),
        (f"The handling fee is 40.00 EUR.\n{ABSENT}", None, "partly"),
    ],
)
def test_a_result_is_answered_by_the_judges_word_and_without_it_by_its_text(play, text, word, answered):
    propose(play, text)
    verdict = ACCEPT | {"reasons": ["The fee is missing."]} | ({"answered": word} if word else {})
    judge(play, json.dumps(verdict))
    result = play.only_output(VerdictReached).result
    assert result.answered == answered
    assert bool(result.answered_reason) == (answered in ("partly", "no"))
    play.replays()


def test_no_judge_lifts_what_a_refused_write_has_settled(play):
    body = propose(Playbook(Checker()))
    denied = body.result.model_copy(update={"answered": "no", "answered_reason": "pay was not done"})
    propose(play, result=denied)
    judge(play, json.dumps(ACCEPT | {"answered": "yes"}))
    result = play.only_output(VerdictReached).result
    assert (result.answered, result.answered_reason) == ("no", "pay was not done")


def test_the_reason_of_an_answer_that_may_not_be_shown_quotes_nobody(play):
    propose(play, ABSENT, output=OutputPolicy(delivery="verified"))
    judge(play, json.dumps(ACCEPT | {"answered": "no", "reasons": ["It quotes the secret."]}))
    result = play.only_output(VerdictReached).result
    assert (result.answered, result.answered_reason) == ("no", "the sources hold no whole answer")


def test_evidence_that_the_judge_is_not_shown_is_missing_from_the_result(play):
    def passage(number: int) -> Evidence:
        content = play.add_content(f"{FEE} Clause {number}. " + "x" * 4_000, "rag")
        place = Citation(marker=content.marker, document="f.md", document_sha256="0" * 64, chunk_id="c", start=0, end=9)
        label = Label(sha256=content.sha256, kind="passage", observed_by="rag")
        return Evidence(content=content, citation=place, label=label)

    for count, omissions in ((5, []), (60, ["36 pieces of evidence"])):
        play = Playbook(Checker())
        propose(play, evidence=tuple(map(passage, range(count))))
        shown = sum(part.kind == "passage" for part in play.only_output(ModelCallRequested).parts)
        judge(play, json.dumps(ACCEPT))
        result = play.only_output(VerdictReached).result
        assert [row.what for row in result.completeness.omissions if "evidence" in row.what] == omissions
        assert count - shown == (36 if omissions else 0)
