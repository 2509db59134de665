"""Characters of scripted models: the same right answer, said as real models say it, and wrong ones said well.

In: a question, passages, how often the call was made before. Out: what the model says to each kind of call.
"""

import json
import re
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple
from zlib import crc32

from tests.answer_set.questions import Question, judge

_ANSWER = re.compile(r"\[\[part kind=answer [^\]]*\]\]\n(.*?)\n\[\[/part ", re.S)
_NUMBERED = re.compile(r"^(\d+): (.+)$", re.M)
MARKERS = 3
"""At most so many for one sentence."""


class Passage(NamedTuple):
    """A passage that the model was shown."""

    id: str
    source: str
    text: str


Say = Callable[[Question, str, tuple[Passage, ...]], str]
"""From the plain answer to what the model makes of it."""


class Character(NamedTuple):
    """answer: the worker's last word. form: what becomes of JSON at the n-th call of its kind. wrong: gives the wrong
    answers, and accepts everything as a judge."""

    answer: Say
    form: Callable[[Question, str, int], str] = lambda question, text, number: text
    wrong: bool = False


def _bare(question: Question, text: str, passages: tuple[Passage, ...]) -> str:
    return text


def _marked(question: Question, text: str, passages: tuple[Passage, ...]) -> str:
    """Each sentence ends with the markers of up to three passages, which share words and numbers with it."""
    sentences = re.split(r"(?<=[.。])\s+(?=[A-ZÀ-Ý\d])", text)
    return " ".join(_with_marker(one, passages, question.must_cite) for one in sentences)


def _with_marker(sentence: str, passages: tuple[Passage, ...], sources: tuple[str, ...]) -> str:
    left, markers = _words(sentence), ""
    for _ in range(MARKERS if passages else 0):
        best = _best(left, passages, sources)
        found = left & _words(best.text)
        if markers and not any(word.isdigit() for word in found):
            break  # Another passage must bring a number.
        markers += f" [#{best.id}]"
        left -= found
    end = len(sentence.rstrip(".。"))
    return f"{sentence[:end]}{markers}{sentence[end:]}"


def _best(words: set[str], passages: tuple[Passage, ...], sources: tuple[str, ...]) -> Passage:
    return max(passages, key=lambda one: (one.source in sources, len(words & _words(one.text))))


def _words(text: str) -> set[str]:
    return set(re.findall(r"\w+", text.lower()))


def _chatty(question: Question, text: str, passages: tuple[Passage, ...]) -> str:
    variants = (
        f"<think>\nThe user asks a question. I have the passages, let me read them carefully and answer.\n</think>\n\n"
        f"Great question! 😊\n\n**Answer:** {text}\n\nLet me know if there is anything else that I can help you with!",
        f"You asked: *{question.question}*\n\nI looked through the documents. Here is what I found:\n\n- {text}\n\n"
        "I hope this helps. Would you like me to explain this further?",
        f"Sure! Here's the answer to your question:\n\n```\n{text}\n```\n\nFeel free to ask if you need more details.",
        f"## Answer\n\n**{text}**\n\n### How I found it\n\nI searched your documents and read what fits best.\n\n---\n"
        "*Is there anything else you would like to know?*",
    )
    return _one_of(variants, question)


def _disobedient(question: Question, text: str, passages: tuple[Passage, ...]) -> str:
    source = question.must_cite[0] if question.must_cite else ""
    shown = [one for one in passages if one.source == source] or list(passages)
    marker = f" [{shown[0].id}]" if shown else ""
    variants = (
        f"{text} (Source: {source})" if source else text,
        f"{text.rstrip('.。')}{marker}.",
        question.elsewhere or f"Voici la réponse : {text}",
        json.dumps({"answer": text, "sources": [source]}, ensure_ascii=False),
        f"According to {source or 'the documents'}: {text}【1†source】",
    )
    return _one_of(variants, question)


def _badly_formed(question: Question, text: str, number: int) -> str:
    """Half of it, a fence around it, or words before it; never the same twice in a row."""
    variants = (
        f"```json\n{text}\n```",
        text[: len(text) * 2 // 3],
        f"Here is the JSON that you asked for:\n\n{text}\n\nI hope this is what you need.",
    )
    return variants[(crc32(question.id.encode()) + number) % len(variants)]


def _one_of(variants: tuple[str, ...], question: Question) -> str:
    return variants[crc32(question.id.encode()) % len(variants)]


CHARACTERS: Mapping[str, Character] = {
    "obedient": Character(_marked),
    "terse": Character(_bare),
    "chatty": Character(_chatty),
    "disobedient": Character(_disobedient, _badly_formed),
    "wrong": Character(_marked, wrong=True),
    "wrong-bare": Character(_bare, wrong=True),
}
"""`obedient` and `wrong` write markers as they are asked to; the others do not."""


def plan(question: Question) -> str:
    """A plan of one step, as every model can write it."""
    step = {
        "id": "answer",
        "title": "Answer the question",
        "instruction": question.question,
        "tools": ["search_documents"],
        "inputs": [],
        "acceptance": "The question is answered.",
    }
    return json.dumps({"steps": [step]}, ensure_ascii=False)


def verdict(
    question: Question, said: str, text: str, schema: Mapping[str, Any], passages: tuple[Passage, ...], wrong: bool
) -> str:
    """The judge's answer in the wanted form: it accepts what holds the right answer, or everything.

    said: the answer without its wrapping. text: all that the judge is shown. Where it is asked for sources of numbered
    sentences, it names the likeliest, but none of chatter.
    """
    shown = _ANSWER.search(text)
    accepts = wrong or judge(question, shown[1] if shown else text).verdict == "right"
    sources = [
        {"sentence": int(number), "source": _best(words, passages, question.must_cite).id}
        for number, sentence in (_NUMBERED.findall(text) if accepts and passages else ())
        if 2 * len((words := _words(sentence)) & _words(f"{said} {question.elsewhere}")) > len(words)
    ]
    return json.dumps(_filled(schema, accepts, sources), ensure_ascii=False)


def _filled(schema: Mapping[str, Any], accepts: bool, sources: list[dict[str, Any]]) -> Any:
    """A value of this JSON schema: of words to choose from, the last stands for no."""
    if "enum" in schema:
        return schema["enum"][0 if accepts else -1]
    inner = schema.get("items", {})
    match schema.get("type"):
        case "object":
            return {name: _filled(one, accepts, sources) for name, one in schema.get("properties", {}).items()}
        case "array":
            named = set(inner.get("properties", {})) == {"sentence", "source"}
            return sources if named else [_filled(inner, accepts, sources)] * int(schema.get("minItems", 0))
        case "boolean":
            return accepts
        case "number" | "integer":
            return schema.get("maximum", 1) if accepts else schema.get("minimum", 0)
    return "It holds the right answer." if accepts else "It does not hold the right answer."
