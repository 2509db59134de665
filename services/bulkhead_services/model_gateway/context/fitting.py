"""A request cut to a model's context, each kind of part to its share, and never silently. Pure.

Enters: a Source, a budget in tokens. Leaves: a Rendered that fits, with what was left out of it, or nothing.
A kind that needs less than its share leaves the rest to the others. What is long is cut inside (`excerpts`); of
passages and tool results the lowest-ranked and the oldest are left out besides. The opening is cut alike in all turns
of a step, and turns are cut in leaps, so that a prompt's beginning seldom changes.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from bulkhead.token_estimates import TokenCounter
from bulkhead_contracts import bounds
from bulkhead_contracts.model import ModelCallRequested, Part
from bulkhead_contracts.result import Omission
from bulkhead_services.model_gateway.context.conversation import handed_on
from bulkhead_services.model_gateway.context.excerpts import excerpt, words_of
from bulkhead_services.model_gateway.context.render import (
    CUTTABLE,
    OPENING,
    SAID,
    Cuts,
    Place,
    Rendered,
    Source,
    block,
    marker,
    readable,
    refers_to,
    render,
    text_of,
    turn_messages,
)
from bulkhead_services.model_gateway.providers.port import Fault, embeds, encode

SHARES: Mapping[str, int] = {
    "objective": 10,
    "step": 10,
    "acceptance": 4,
    "notes": 4,
    "context": 2,
    "answer": 15,
    "input": 20,
    "passage": 25,
    "tool_result": 10,
}
"""Percent of the opening's room by kind of part, where they do not all fit. A list of tools is never cut."""
TURNS = 40
"""Percent of a context's room that is kept for turns, where there may be some."""
LEAP = 0.75
"""Of the turns' room, what they fill after they were cut: the next turns then cut nothing."""
ONE = 0.25
"""Of the room of passages or tool results, what one of them may have while there are others."""
LEAST_EXCERPT = 40.0
"""Tokens below which an excerpt says nothing."""
MUST = frozenset({"objective", "step", "acceptance", "answer"})
"""Kinds without which a call has no sense."""
AGAIN = (1.0, 0.92, 0.8)
"""Room of each try: words that are left out leave a line behind."""
_NAMES = {"passage": "passages", "tool_result": "tool results", "input": "inputs", "said": "words of earlier turns"}


@dataclass(frozen=True, slots=True)
class Piece:
    """A text that may be cut. weight: of the text. frame: of what stands around it."""

    place: Place
    part: Part | None
    text: str
    weight: float
    frame: float = 0.0

    @property
    def kind(self) -> str:
        """The part's, or `said`."""
        return self.part.kind if self.part else "said"


def fit(source: Source, budget_tokens: int, counter: TokenCounter) -> Rendered | None:
    """The request cut to a budget of estimated tokens; None when not even the least of it fits. An outside agent's is
    never cut."""
    if source.payload is not None:
        agents = handed_on(source.payload, counter)
        # Texts to embed share no context: a provider judges each of them.
        fits = embeds(source.payload) or agents.input_tokens_estimate <= budget_tokens
        return agents if fits else None
    whole = _rendered(source, {}, counter)
    if whole.input_tokens_estimate * 100 <= budget_tokens * (100 - TURNS if _may_turn(source.request) else 100):
        return whole
    plan = _Plan(source, counter)
    for share in AGAIN:
        cuts = plan.cuts(budget_tokens / counter.factor, share)
        if cuts is None:
            return None
        found = _rendered(source, cuts, counter, plan)
        if found.input_tokens_estimate <= budget_tokens:
            return found
    return None


def does_not_fit(source: Source, model: str, budget_tokens: int) -> Fault:
    """The end of a call that has no room at a model."""
    room = f"exceeds the {max(0, budget_tokens)} tokens (estimated) that {model} has room for"
    if source.payload is not None:
        what, hint = (
            f"the conversation {room}",
            "send fewer or shorter messages, ask for less output, or name another model",
        )
    else:
        what = f"even without passages and tool results the prompt {room}"
        hint = "shorten the objective or the step's inputs, or use a model with a longer context"
    return Fault("context_overflow", what, hint, consumed=False)


def _may_turn(request: ModelCallRequested) -> bool:
    return bool(request.tools or request.turns)


def _rendered(source: Source, cuts: Cuts, counter: TokenCounter, plan: "_Plan | None" = None) -> Rendered:
    payload, stable = render(source, cuts)
    said = _said(cuts, plan.pieces) if plan else ()
    return Rendered(payload, counter.estimate(encode(payload)), (*said, *_unread(source)), stable)


class _Plan:
    """The pieces of one request, and what becomes of them in so much room."""

    def __init__(self, source: Source, counter: TokenCounter) -> None:
        self._source, self._counter = source, counter
        request = source.request
        first = request.model_copy(update={"turns": ()})
        self._opening = [
            self._piece((OPENING, 0, index), part) for index, part in enumerate(request.parts) if part.kind in SHARES
        ]
        self._turns = [self._turn(index) for index in range(len(request.turns))]
        self._frames = [self._frame(index) for index in range(len(request.turns))]
        self.pieces = {row.place: row for rows in (self._opening, *self._turns) for row in rows}
        whole = counter.weight(encode(render(replace(source, request=first), {})[0]))
        self._fixed = whole - self._weight(self._opening, {})
        question = [row.text for row in self._opening if row.kind in ("objective", "step")]
        self._words = words_of(" ".join(question))

    def _piece(self, place: Place, part: Part) -> Piece:
        if not readable(part, self._source):
            return Piece(place, part, "", 0.0)
        text = text_of(part, self._source.texts)
        weight = self._weigh(text)
        return Piece(place, part, text, weight, self._weigh(block(part, {}, text)) - weight)

    def _turn(self, index: int) -> list[Piece]:
        """What one turn said and got, the best-ranked first."""
        turn = self._source.request.turns[index]
        found = [
            self._piece((index, at, number), part)
            for at, answer in enumerate(turn.answers)
            if answer.error is None
            for number, part in enumerate(answer.parts)
        ]
        said = self._source.texts.get(turn.content.sha256, "") if turn.content else ""
        return [*found, Piece((index, SAID, 0), None, said, self._weigh(said))] if said else found

    def _frame(self, index: int) -> float:
        """The weight of what stands in a turn and cannot be cut: calls, errors, markers."""
        messages = turn_messages(self._source.request.turns[index], index, self._source, {})
        return self._counter.weight(encode({"messages": messages})) - self._weight(self._turns[index], {})

    def _weigh(self, text: str) -> float:
        return self._counter.weight(json.dumps(text, ensure_ascii=False).encode("utf-8", "replace"))

    def cuts(self, room: float, share: float) -> Cuts | None:
        """What is shown instead of what; None where nothing that may be cut is left. share: of the room that gives."""
        room -= self._fixed
        if not self._turns:
            room *= share
        turning = _may_turn(self._source.request)
        opening = self._cut_opening(room * (100 - TURNS) / 100 if turning else room)
        if opening is None:
            return None
        left = (room - self._weight(self._opening, opening)) * share
        turns = self._cut_turns(left)
        return None if left < 0 or turns is None else {**opening, **turns}

    def _cut_opening(self, room: float) -> dict[Place, str | None] | None:
        if self._weight(self._opening, {}) <= room:
            return {}
        kinds = {kind: [row for row in self._opening if row.kind == kind] for kind in SHARES}
        needs = {kind: self._weight(rows, {}) for kind, rows in kinds.items() if rows}
        rooms = divided(max(room, 0.0), needs, SHARES)
        cuts: dict[Place, str | None] = {}
        for kind, own in rooms.items():
            if needs[kind] > own:
                made = self._fill(kinds[kind], own) if kind in CUTTABLE else self._shorten(kinds[kind], own)
                if made is None:
                    return None
                cuts |= made
        return cuts

    def _cut_turns(self, room: float) -> dict[Place, str | None] | None:
        """As every turn before found it: they are cut again only when the next one does not fit."""
        cuts: dict[Place, str | None] = {}
        for count in range(1, len(self._turns) + 1):
            rows = [row for index in reversed(range(count)) for row in self._turns[index]]
            rest = sum(self._frames[:count])
            if rest + self._weight(rows, cuts) > room:
                if room < rest:
                    return None
                cuts = self._fill(rows, max(room * LEAP, min(room, rest + LEAST_EXCERPT)) - rest)
        return cuts

    def _weight(self, rows: Sequence[Piece], cuts: Cuts) -> float:
        total = 0.0
        for row in rows:
            text = cuts.get(row.place, row.text)
            if text is not None:
                total += row.frame + (row.weight if row.place not in cuts else self._weigh(text))
        return total

    def _shorten(self, rows: Sequence[Piece], room: float) -> dict[Place, str | None] | None:
        """The longest become as long as each other. None where one that must stay cannot."""
        needs = {str(at): row.weight + row.frame for at, row in enumerate(rows)}
        rooms = divided(room, needs, dict.fromkeys(needs, 1))
        cuts: dict[Place, str | None] = {}
        for at, row in enumerate(rows):
            if needs[str(at)] > rooms[str(at)]:
                made = self._excerpt(row, rooms[str(at)])
                if made is None and row.kind in MUST:
                    return None
                cuts[row.place] = made
        return cuts

    def _fill(self, rows: Sequence[Piece], room: float) -> dict[Place, str | None]:
        """In their order, none with more than a part of the room while there are others; the last ones stay out."""
        cuts: dict[Place, str | None] = {}
        left, full, most = room, False, room * ONE
        for row in rows:
            need = min(row.weight + row.frame, most)
            full = full or need > left
            if full:
                cuts[row.place] = None
            else:
                left -= need
        for row in rows:
            need = row.weight + row.frame
            if row.place not in cuts and need > most:
                if need - most <= left:
                    left -= need - most
                    continue
                cuts[row.place] = self._excerpt(row, most + left)
                left = 0.0
        return cuts

    def _excerpt(self, row: Piece, room: float) -> str | None:
        if room - row.frame < LEAST_EXCERPT:
            return None
        words = self._words if row.kind not in ("objective", "step") else frozenset[str]()
        made = excerpt(row.text, room - row.frame, self._weigh, words)
        return made.text if made else None


def divided(room: float, needs: Mapping[str, float], shares: Mapping[str, int]) -> dict[str, float]:
    """Room by name, in proportion to the shares; what needs less than that leaves the rest to the others."""
    found: dict[str, float] = {}
    open_names = set(needs)
    while open_names:
        whole = sum(shares[name] for name in open_names)
        content = {name for name in open_names if needs[name] <= room * shares[name] / whole}
        if not content:
            return found | {name: room * shares[name] / whole for name in open_names}
        found |= {name: needs[name] for name in content}
        room -= sum(needs[name] for name in content)
        open_names -= content
    return found


# What is told


def _said(cuts: Cuts, pieces: Mapping[Place, Piece]) -> list[Omission]:
    """One omission for each kind that lacks parts, and one for each that was shortened."""
    omissions = []
    for kind in dict.fromkeys(pieces[place].kind for place in sorted(cuts)):
        rows = [pieces[place] for place in sorted(cuts) if pieces[place].kind == kind]
        gone = [row for row in rows if cuts[row.place] is None]
        short = [row for row in rows if cuts[row.place] is not None]
        name = _NAMES.get(kind, f"{kind} parts")
        if gone:
            what = f"{len(gone)} {name}, which the model did not see"
            omissions.append(Omission(reason="pruned", what=what, detail=_listed("they do not fit its context", gone)))
        if short:
            kept, whole = sum(len(cuts[row.place] or "") for row in short), sum(len(row.text) for row in short)
            what = f"{len(short)} {name}, of which the model saw about {kept:,} of {whole:,} characters"
            detail = _listed("they are too long for its context", short)
            omissions.append(Omission(reason="truncated", what=what, detail=detail))
    return omissions


def _listed(why: str, rows: Sequence[Piece]) -> str:
    parts = [row.part for row in rows if row.part]
    names = ", ".join(dict.fromkeys(f"{one.source or one.title} #{marker(one)}".strip() for one in parts))
    return f"{why}: {names}"[: bounds.MAX_REASON_CHARS] if names else why


def _unread(source: Source) -> list[Omission]:
    parts = refers_to(source.request)
    gone = {marker(one): one for one in parts if one.content and one.content.sha256 in source.missing}
    names = [f"{part.kind} #{name}"[: bounds.MAX_SUMMARY_CHARS] for name, part in list(gone.items())[:8]]
    detail = "its content could not be read: it has expired or does not match its digest"
    return [Omission(reason="failed_part", what=name, detail=detail) for name in names]
