"""A request cut to a model's context, each kind of part to its share, and never silently. Pure.

Enters: a RenderSource, a budget in tokens. Leaves: a RenderedRequest that fits, with what was left out of it,
or nothing. A kind that needs less than its share leaves the rest to the others. What is long is cut inside
(`excerpts`); of passages and tool results the lowest-ranked and the oldest are left out besides. The opening
is cut alike in all turns of a step, and turns are cut in leaps, so that a prompt's beginning seldom changes.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from bulkhead.quotas.token_estimates import TokenCounter
from bulkhead_contracts import bounds
from bulkhead_contracts.model import ModelCallRequested, Part
from bulkhead_contracts.result import Omission
from bulkhead_services.model_gateway.context.conversation import render_conversation
from bulkhead_services.model_gateway.context.excerpts import make_excerpt, words_of
from bulkhead_services.model_gateway.context.render import (
    ASSISTANT_TEXT,
    CUTTABLE,
    OPENING,
    Cuts,
    PartPosition,
    RenderedRequest,
    RenderSource,
    all_parts,
    is_readable,
    marker_of,
    render_block,
    render_payload,
    text_of,
    turn_messages,
)
from bulkhead_services.model_gateway.providers.port import ProviderFault, encode_payload, is_embedding

KIND_SHARES_PERCENT: Mapping[str, int] = {
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
TURNS_PERCENT = 40
"""Percent of a context's room that is kept for turns, where there may be some."""
TURNS_AFTER_CUT = 0.75
"""Of the turns' room, what they fill after they were cut: the next turns then cut nothing."""
SINGLE_PIECE_SHARE = 0.25
"""Of the room of passages or tool results, what one of them may have while there are others."""
MIN_EXCERPT_TOKENS = 40.0
"""Tokens below which an excerpt says nothing."""
REQUIRED_KINDS = frozenset({"objective", "step", "acceptance", "answer"})
"""Kinds without which a call has no sense."""
ROOM_OF_EACH_TRY = (1.0, 0.92, 0.8)
"""Room of each try: words that are left out leave a line behind."""
_NAMES = {"passage": "passages", "tool_result": "tool results", "input": "inputs", "said": "words of earlier turns"}


@dataclass(frozen=True, slots=True)
class CuttablePiece:
    """A text that may be cut. weight: of the text. frame_weight: of what stands around it."""

    position: PartPosition
    part: Part | None
    text: str
    weight: float
    frame_weight: float = 0.0

    @property
    def kind(self) -> str:
        """The part's, or `said`."""
        return self.part.kind if self.part else "said"


def fit_request(source: RenderSource, budget_tokens: int, counter: TokenCounter) -> RenderedRequest | None:
    """The request cut to a budget of estimated tokens; None when not even the least of it fits. An outside agent's is
    never cut."""
    if source.payload is not None:
        conversation_request = render_conversation(source, counter)
        # Texts to embed share no context: a provider judges each of them.
        fits = is_embedding(source.payload) or conversation_request.input_tokens_estimate <= budget_tokens
        return conversation_request if fits else None
    uncut = _render_cut(source, {}, counter)
    if uncut.input_tokens_estimate * 100 <= budget_tokens * (
        100 - TURNS_PERCENT if _may_have_turns(source.request) else 100
    ):
        return uncut
    plan = _CutPlan(source, counter)
    for share in ROOM_OF_EACH_TRY:
        cuts = plan.cuts_for(budget_tokens / counter.factor, share)
        if cuts is None:
            return None
        cut_request = _render_cut(source, cuts, counter, plan)
        if cut_request.input_tokens_estimate <= budget_tokens:
            return cut_request
    return None


def does_not_fit_fault(source: RenderSource, model: str, budget_tokens: int) -> ProviderFault:
    """The end of a call that has no room at a model."""
    room = f"exceeds the {max(0, budget_tokens)} tokens (estimated) that {model} has room for"
    if source.payload is not None:
        reason, hint = (
            f"the conversation {room}",
            "send fewer or shorter messages, ask for less output, or name another model",
        )
    else:
        reason = f"even without passages and tool results the prompt {room}"
        hint = "shorten the objective or the step's inputs, or use a model with a longer context"
    return ProviderFault("context_overflow", reason, hint, consumed=False)


def _may_have_turns(request: ModelCallRequested) -> bool:
    return bool(request.tools or request.turns)


def _render_cut(
    source: RenderSource, cuts: Cuts, counter: TokenCounter, plan: "_CutPlan | None" = None
) -> RenderedRequest:
    payload, stable_messages = render_payload(source, cuts)
    omissions = _cut_omissions(cuts, plan.pieces) if plan else ()
    return RenderedRequest(
        payload, counter.estimate(encode_payload(payload)), (*omissions, *_unread_omissions(source)), stable_messages
    )


class _CutPlan:
    """The pieces of one request, and what becomes of them in so much room."""

    def __init__(self, source: RenderSource, counter: TokenCounter) -> None:
        self._source, self._counter = source, counter
        request = source.request
        opening_request = request.model_copy(update={"turns": ()})
        self._opening = [
            self._piece_of((OPENING, 0, index), part)
            for index, part in enumerate(request.parts)
            if part.kind in KIND_SHARES_PERCENT
        ]
        self._turns = [self._turn_pieces(index) for index in range(len(request.turns))]
        self._frames = [self._frame_weight(index) for index in range(len(request.turns))]
        self.pieces = {row.position: row for rows in (self._opening, *self._turns) for row in rows}
        total = counter.weight_of(encode_payload(render_payload(replace(source, request=opening_request), {})[0]))
        self._fixed = total - self._total_weight(self._opening, {})
        question = [row.text for row in self._opening if row.kind in ("objective", "step")]
        self._words = words_of(" ".join(question))

    def _piece_of(self, place: PartPosition, part: Part) -> CuttablePiece:
        if not is_readable(part, self._source):
            return CuttablePiece(place, part, "", 0.0)
        text = text_of(part, self._source.texts)
        weight = self._weigh_text(text)
        return CuttablePiece(place, part, text, weight, self._weigh_text(render_block(part, {}, text)) - weight)

    def _turn_pieces(self, index: int) -> list[CuttablePiece]:
        """Pieces that one turn said and got, the best-ranked first."""
        turn = self._source.request.turns[index]
        pieces = [
            self._piece_of((index, answer_index, number), part)
            for answer_index, answer in enumerate(turn.answers)
            if answer.error is None
            for number, part in enumerate(answer.parts)
        ]
        assistant_text = self._source.texts.get(turn.content.sha256, "") if turn.content else ""
        return (
            [*pieces, CuttablePiece((index, ASSISTANT_TEXT, 0), None, assistant_text, self._weigh_text(assistant_text))]
            if assistant_text
            else pieces
        )

    def _frame_weight(self, index: int) -> float:
        """The weight of what stands in a turn and cannot be cut: calls, errors, markers."""
        messages = turn_messages(self._source.request.turns[index], index, self._source, {})
        return self._counter.weight_of(encode_payload({"messages": messages})) - self._total_weight(
            self._turns[index], {}
        )

    def _weigh_text(self, text: str) -> float:
        return self._counter.weight_of(json.dumps(text, ensure_ascii=False).encode("utf-8", "replace"))

    def cuts_for(self, room: float, share: float) -> Cuts | None:
        """Cuts by place; None where nothing that may be cut is left. share: of the room that gives."""
        room -= self._fixed
        if not self._turns:
            room *= share
        may_have_turns = _may_have_turns(self._source.request)
        opening = self._cut_opening(room * (100 - TURNS_PERCENT) / 100 if may_have_turns else room)
        if opening is None:
            return None
        room_left = (room - self._total_weight(self._opening, opening)) * share
        turns = self._cut_turns(room_left)
        return None if room_left < 0 or turns is None else {**opening, **turns}

    def _cut_opening(self, room: float) -> dict[PartPosition, str | None] | None:
        if self._total_weight(self._opening, {}) <= room:
            return {}
        kinds = {kind: [row for row in self._opening if row.kind == kind] for kind in KIND_SHARES_PERCENT}
        needs = {kind: self._total_weight(rows, {}) for kind, rows in kinds.items() if rows}
        rooms = divide_room(max(room, 0.0), needs, KIND_SHARES_PERCENT)
        cuts: dict[PartPosition, str | None] = {}
        for kind, kind_room in rooms.items():
            if needs[kind] > kind_room:
                kind_cuts = (
                    self._fill_room(kinds[kind], kind_room)
                    if kind in CUTTABLE
                    else self._shorten_longest(kinds[kind], kind_room)
                )
                if kind_cuts is None:
                    return None
                cuts |= kind_cuts
        return cuts

    def _cut_turns(self, room: float) -> dict[PartPosition, str | None] | None:
        """Cut the turns as every turn before found them: again only when the next one does not fit."""
        cuts: dict[PartPosition, str | None] = {}
        for count in range(1, len(self._turns) + 1):
            rows = [row for index in reversed(range(count)) for row in self._turns[index]]
            frames_weight = sum(self._frames[:count])
            if frames_weight + self._total_weight(rows, cuts) > room:
                if room < frames_weight:
                    return None
                cuts = self._fill_room(
                    rows, max(room * TURNS_AFTER_CUT, min(room, frames_weight + MIN_EXCERPT_TOKENS)) - frames_weight
                )
        return cuts

    def _total_weight(self, rows: Sequence[CuttablePiece], cuts: Cuts) -> float:
        total = 0.0
        for row in rows:
            text = cuts.get(row.position, row.text)
            if text is not None:
                total += row.frame_weight + (row.weight if row.position not in cuts else self._weigh_text(text))
        return total

    def _shorten_longest(self, rows: Sequence[CuttablePiece], room: float) -> dict[PartPosition, str | None] | None:
        """The longest become as long as each other. None where one that must stay cannot."""
        needs = {str(index): row.weight + row.frame_weight for index, row in enumerate(rows)}
        rooms = divide_room(room, needs, dict.fromkeys(needs, 1))
        cuts: dict[PartPosition, str | None] = {}
        for index, row in enumerate(rows):
            if needs[str(index)] > rooms[str(index)]:
                shortened = self._excerpt_of(row, rooms[str(index)])
                if shortened is None and row.kind in REQUIRED_KINDS:
                    return None
                cuts[row.position] = shortened
        return cuts

    def _fill_room(self, rows: Sequence[CuttablePiece], room: float) -> dict[PartPosition, str | None]:
        """In their order, none with more than a part of the room while there are others; the last ones stay out."""
        cuts: dict[PartPosition, str | None] = {}
        room_left, full, max_weight = room, False, room * SINGLE_PIECE_SHARE
        for row in rows:
            need = min(row.weight + row.frame_weight, max_weight)
            full = full or need > room_left
            if full:
                cuts[row.position] = None
            else:
                room_left -= need
        for row in rows:
            need = row.weight + row.frame_weight
            if row.position not in cuts and need > max_weight:
                if need - max_weight <= room_left:
                    room_left -= need - max_weight
                    continue
                cuts[row.position] = self._excerpt_of(row, max_weight + room_left)
                room_left = 0.0
        return cuts

    def _excerpt_of(self, row: CuttablePiece, room: float) -> str | None:
        if room - row.frame_weight < MIN_EXCERPT_TOKENS:
            return None
        words = self._words if row.kind not in ("objective", "step") else frozenset[str]()
        shortened = make_excerpt(row.text, room - row.frame_weight, self._weigh_text, words)
        return shortened.text if shortened else None


def divide_room(room: float, needs: Mapping[str, float], shares: Mapping[str, int]) -> dict[str, float]:
    """Room by name, in proportion to the shares; what needs less than that leaves the rest to the others."""
    rooms: dict[str, float] = {}
    open_names = set(needs)
    while open_names:
        total_share = sum(shares[name] for name in open_names)
        satisfied = {name for name in open_names if needs[name] <= room * shares[name] / total_share}
        if not satisfied:
            return rooms | {name: room * shares[name] / total_share for name in open_names}
        rooms |= {name: needs[name] for name in satisfied}
        room -= sum(needs[name] for name in satisfied)
        open_names -= satisfied
    return rooms


# What is told


def _cut_omissions(cuts: Cuts, pieces: Mapping[PartPosition, CuttablePiece]) -> list[Omission]:
    """One omission for each kind that lacks parts, and one for each that was shortened."""
    omissions = []
    for kind in dict.fromkeys(pieces[place].kind for place in sorted(cuts)):
        rows = [pieces[place] for place in sorted(cuts) if pieces[place].kind == kind]
        left_out = [row for row in rows if cuts[row.position] is None]
        shortened = [row for row in rows if cuts[row.position] is not None]
        name = _NAMES.get(kind, f"{kind} parts")
        if left_out:
            description = f"{len(left_out)} {name}, which the model did not see"
            omissions.append(
                Omission(
                    reason="pruned", what=description, detail=_list_pieces("they do not fit its context", left_out)
                )
            )
        if shortened:
            kept_chars, total_chars = (
                sum(len(cuts[row.position] or "") for row in shortened),
                sum(len(row.text) for row in shortened),
            )
            description = (
                f"{len(shortened)} {name}, of which the model saw about {kept_chars:,} of {total_chars:,} characters"
            )
            detail = _list_pieces("they are too long for its context", shortened)
            omissions.append(Omission(reason="truncated", what=description, detail=detail))
    return omissions


def _list_pieces(reason: str, rows: Sequence[CuttablePiece]) -> str:
    parts = [row.part for row in rows if row.part]
    names = ", ".join(dict.fromkeys(f"{part.source or part.title} #{marker_of(part)}".strip() for part in parts))
    return f"{reason}: {names}"[: bounds.MAX_REASON_CHARS] if names else reason


def _unread_omissions(source: RenderSource) -> list[Omission]:
    parts = all_parts(source.request)
    unread = {marker_of(part): part for part in parts if part.content and part.content.sha256 in source.missing}
    names = [f"{part.kind} #{name}"[: bounds.MAX_SUMMARY_CHARS] for name, part in list(unread.items())[:8]]
    detail = "its content could not be read: it has expired or does not match its digest"
    return [Omission(reason="failed_part", what=name, detail=detail) for name in names]
