"""The judge's role. Enters: the judge's prompt. Leaves: a verdict by overlap of words."""

import re
from typing import Any

from bulkhead_infra.offline_model.parts import Prompt
from bulkhead_infra.offline_model.quoting import NOTHING, best_sentences, sentences_of_passages
from bulkhead_infra.offline_model.roles.planning import split_objective, task_and_facts
from bulkhead_infra.offline_model.text import MARKER, overlap, stems

OVERLAP_MIN = 0.5
HONEST = re.compile(rf"^(?:{NOTHING}|The tool \w+ did not work)|(?i:\bno answer\b|\bdocuments do not (?:say|hold)\b)")
REASONING = stems(
    "amount comes passages differ later effective date prevails first holds exception applies case meets terms force "
    "round max min falls leaves excluded none listed covers tool gave"
)


def judge_answer(prompt: Prompt) -> dict[str, Any]:
    """The verdict on the `answer` part against the evidence. It finds no source for a sentence."""
    lines = [line for line in prompt.text("answer").splitlines() if line.strip()]
    stating = [line for line in lines if not HONEST.search(line)]
    score, reason = 0.7, "The passages indeed hold no answer."
    if not lines:
        score, reason = 0.0, "The answer is empty."
    elif stating:
        words = stems(MARKER.sub("", "\n".join(stating))) - REASONING
        given = prompt.text("passage", "tool_result", "input", "step")
        score = overlap(words, stems(given)) if words and prompt.of("passage") else 1.0
        reason = f"Judged by overlap alone: {round(100 * score)} percent of its words stand in what it was given."
    else:
        # To have found nothing is right when no passage shares most with a question.
        questions = split_objective(task_and_facts(prompt.text("step"))[0])[1]
        questions = questions or re.findall(rf"{NOTHING}: “([^”]*)”", prompt.text("answer"))
        sentences = sentences_of_passages(prompt.of("passage"))
        if missed := [sentence for question in questions for sentence in best_sentences(sentences, question)]:
            score, reason = 0.2, f"It says that nothing was found, but a passage says: {missed[0].text[:200]}"
    verdict = "accept" if score >= OVERLAP_MIN else "reject"
    return {"verdict": verdict, "score": round(score, 3), "reasons": [reason], "support": []}
