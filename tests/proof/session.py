"""A conversation of a hundred turns on a whole mesh in memory, with the offline model: what a late turn costs.

Once with summaries, once with the whole transcript in each turn. The same question, of a document and of what was said
in turn 3, is asked in turn 5 and in turn 100.
"""

import asyncio
import tempfile
from pathlib import Path

from bulkhead.gateway_api.sessions import SessionDocument, TurnDocument
from tests.proof.__main__ import Figure
from tests.replay.stage import offline_model, stage

TURNS, EARLY = 100, 5
MOST_RATIO, MOST_WITH_SUMMARIES = 1.2, 1.25
FACT, ANSWER = "My daughter Mira was born on 12 May 2014.", "12 May 2014"
QUESTION = "What is the fare to Graz? When was my daughter Mira born?"
TOWNS = [
    "Graz",
    "Linz",
    "Wels",
    "Steyr",
    "Krems",
    "Bregenz",
    "Villach",
    "Leoben",
    "Lienz",
    "Kufstein",
    "Bludenz",
    "Enns",
]
FARES = "\n\n".join(
    f"## {town}\nThe fare to {town} is EUR {12 + 7 * place}. Trains to {town} leave every hour from platform "
    f"{place + 1}, and the last one at 22:{10 + place}. A seat to {town} can be reserved until the evening before; "
    f"children under six travel free, and dogs to {town} pay half of the fare and need a muzzle in the dining car."
    for place, town in enumerate(TOWNS)
)
FIRST = ("What is the fare to Linz?", "What do dogs to Linz pay?", FACT, "What is the fare to Wels?", QUESTION)
OTHERS = (
    "What is the fare to Graz?",
    "Thank you, that helps.",
    "What do dogs to Linz pay?",
    "What is the fare to Wels?",
)


def text_of_turn(number: int) -> str:
    """What the person says: a new fact in every tenth turn, mostly questions."""
    if number <= len(FIRST):
        return FIRST[number - 1]
    if number == TURNS:
        return QUESTION
    return f"My ticket of week {number} has number {7_000 + number}." if number % 10 == 0 else OTHERS[number % 4]


async def hold_session(folder: Path, summary_limit_usd: float | None) -> SessionDocument:
    """A session of so many turns; its document, with the turns that are measured. Raises AssertionError where a turn
    fails."""
    async with offline_model() as url, stage(folder, openai_base_url=url) as on, on.client() as ann:
        await ann.add_document(FARES.encode(), "fares.md")
        session, measured = ann.session(summary_limit_usd=summary_limit_usd, tools=("search_documents",)), []
        for number in range(1, TURNS + 1):
            result = await session.ask(text_of_turn(number))
            assert result.status == "succeeded", (number, result.failure)
            if number in (EARLY, TURNS):
                shown = await session.show()
                measured.append(shown.turns[-1])
        return shown.model_copy(update={"turns": tuple(measured)})


async def _hold_both() -> tuple[SessionDocument, SessionDocument]:
    with tempfile.TemporaryDirectory() as summarised, tempfile.TemporaryDirectory() as whole:
        return await hold_session(Path(summarised), None), await hold_session(Path(whole), 0.0)


def _describe(early: TurnDocument, late: TurnDocument) -> str:
    costs = [f"{turn.tokens:,} tokens and {turn.cost_usd_micros} micro USD" for turn in (early, late)]
    return f"turn {EARLY} {costs[0]}, turn {TURNS} {costs[1]}, {late.tokens / early.tokens:.2f} times the tokens"


def measure() -> list[Figure]:
    """Figures of a session with summaries and of one without."""
    session, whole = asyncio.run(_hold_both())
    (early, late), summaries = session.turns, session.summaries
    tokens_a_turn = summaries.tokens / TURNS
    ratio = max(late.tokens / early.tokens, late.cost_usd_micros / early.cost_usd_micros)
    burdened = (late.tokens + tokens_a_turn) / early.tokens
    return [
        Figure("a session with summaries", _describe(early, late), f"{MOST_RATIO} times at most", ratio <= MOST_RATIO),
        Figure(
            "the same, with its share of all summaries",
            f"{tokens_a_turn:.0f} tokens a turn more, {burdened:.2f} times",
            f"{MOST_WITH_SUMMARIES} times at most",
            burdened <= MOST_WITH_SUMMARIES,
        ),
        Figure(
            "a session without", _describe(*whole.turns), "more than with them", whole.turns[1].tokens > late.tokens
        ),
        Figure(
            "the answer to what was said in turn 3",
            " ".join((late.answer or "").split()),
            ANSWER,
            ANSWER in (late.answer or "") and ANSWER in (early.answer or ""),
        ),
        Figure(
            "summaries",
            f"{summaries.made} made for {summaries.tokens:,} tokens, {summaries.tokens_saved:,} saved",
            "more saved than spent",
            summaries.tokens_saved > summaries.tokens,
        ),
    ]
