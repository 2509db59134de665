"""The judge's role. Enters: the judge's prompt. Leaves: `{"verdict", "score", "reasons", "support"}` by overlap."""

import re
from typing import Any

from bulkhead_infra.offline_model.language.claims import Topic
from bulkhead_infra.offline_model.language.extracting import best_sentences
from bulkhead_infra.offline_model.language.pool import sentences_of_passages
from bulkhead_infra.offline_model.language.quantities import find_percents
from bulkhead_infra.offline_model.language.text import MARKER, overlap, split_sentences, stems
from bulkhead_infra.offline_model.parts import Prompt
from bulkhead_infra.offline_model.roles.composing import NOTHING, UNSEARCHED
from bulkhead_infra.offline_model.roles.planning import questions_of, task_and_facts

OVERLAP_MIN = 0.5
GENERIC = stems(
    "gives give says say states plainly hold holds cited cites each statement citation citations what "
    "documents document question asked worked tool results earlier steps answers answer every number rests"
)
HONEST = re.compile(
    rf"(?i)^{NOTHING}|\bno answer\b|\bnot (?:found|stated|mentioned|available)\b|"
    r"\bdocuments do not (?:say|contain|hold|mention|state)|^The tool \w+ did not work"
)


def judge(prompt: Prompt) -> dict[str, Any]:
    """The verdict on the `answer` part against `acceptance` and passages. It finds no source for a sentence."""
    return {**_judge(prompt), "support": []}


def _judge(prompt: Prompt) -> dict[str, Any]:
    answer = prompt.text("answer").strip()
    acceptance = prompt.text("acceptance")
    passages = prompt.of("passage")
    told = [part.text for part in prompt.of("passage", "tool_result", "input", "step")]
    if not answer:
        return {"verdict": "reject", "score": 0.0, "reasons": ["The answer is empty."]}
    if all(HONEST.search(line) and not line.startswith("“") for line in answer.splitlines() if line.strip()):
        return _judge_nothing(prompt, answer)
    # A line that says that something is missing needs no support.
    bare = MARKER.sub("", "\n".join(line for line in answer.splitlines() if not HONEST.search(line)))
    supported = _support(bare, told)
    wanted = stems(acceptance) - GENERIC
    covered = overlap(wanted, stems(bare)) if wanted else 1.0
    reasons: list[str] = []
    if passages and supported < OVERLAP_MIN:
        reasons.append("Less than half of the answer's words stand in the passages.")
    if wanted and covered == 0 and passages and supported < 0.8:
        reasons.append("The answer speaks of nothing that the acceptance criterion asks for.")
    reasons.extend(_kind_missing(acceptance, bare))
    score = round((supported + max(covered, 0.5)) / 2 if passages else max(covered, 0.6), 3)
    if reasons:
        return {"verdict": "reject", "score": min(score, 0.49), "reasons": reasons}
    share = f"{round(100 * supported)} percent of its words stand in the passages" if passages else "no passages given"
    return {"verdict": "accept", "score": max(score, 0.5), "reasons": [f"Judged by overlap alone: {share}."]}


def _support(answer: str, passages: list[str]) -> float:
    """Share of the answer's stems in the passages, words of its calculations and of reasoning left out."""
    own = stems(
        "amount comes two passages differ later effective date prevails first holds exception applies case "
        "meets terms force only taken round max min falls leaves excluded shown asks none those listed covers"
    )
    words = stems(answer) - own
    return overlap(words, stems("\n".join(passages))) if words else 1.0


def _kind_missing(acceptance: str, answer: str) -> list[str]:
    """Reasons when the criterion asks for a kind of value that the answer lacks."""
    number = re.search(r"\d", answer)
    for wanted, kind, given in (
        ("gives the amount", "an amount", number),
        ("number of days", "a number of days", number),
        ("percentage", "a percentage", find_percents(answer)),
    ):
        if re.search(rf"\b{wanted}\b", acceptance, re.I) and not given:
            return [f"The criterion asks for {kind} and the answer gives none."]
    return []


def _judge_nothing(prompt: Prompt, answer: str) -> dict[str, Any]:
    """The verdict on an answer that found nothing: right when no passage overlaps with the question."""
    task, facts = task_and_facts(prompt.text("step"))
    asked = questions_of(task) if task else re.findall(rf"{NOTHING}: “([^”]*)”", answer)
    if UNSEARCHED in answer and not prompt.of("passage", "input"):
        return {"verdict": "reject", "score": 0.2, "reasons": ["Nothing was searched: look it up in the documents."]}
    sentences = sentences_of_passages(prompt.of("passage"))
    answering = [sentence for question in asked for sentence in best_sentences(sentences, Topic(question, facts))]
    if not answering:
        return {"verdict": "accept", "score": 0.7, "reasons": ["The passages indeed hold no answer."]}
    reason = (
        f"The answer says that nothing was found, but a passage says: {split_sentences(answering[0].text)[0][:200]}"
    )
    return {"verdict": "reject", "score": 0.2, "reasons": [reason]}
