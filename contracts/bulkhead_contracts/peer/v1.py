"""Peers: an agent asks other steps of its task for results or an opinion, through the planner.

Asker -> planner -> asked step; the answer, given or its result, comes back the same way, one message for each step that
was asked. Who asks waits until all, or any, have answered.
"""

from typing import Annotated, Literal

from pydantic import Field

from bulkhead_contracts import bounds

from ..result import Failure, Label, Result
from ..types import Body, Count, Reason, Token, UnixMs

PeerText = Annotated[str, Field(max_length=bounds.MAX_PEER_ANSWER_CHARS)]


class AnswerRequested(Body, type="mesh.peer.answer_requested"):
    """A step asks others. question: "" asks for their results alone; otherwise the first of {answer, result} is told.

    The planner hands it on to each of `targets` that runs, with that one as its only target.
    """

    ask_id: Token
    step_id: Token
    attempt: Count
    plan_version: Count
    targets: Annotated[tuple[Token, ...], Field(min_length=1, max_length=bounds.MAX_ASKED_STEPS)]
    mode: Literal["all", "any"] = "all"
    question: Reason = ""
    deadline_unix_ms: UnixMs


class AnswerGiven(Body, type="mesh.peer.answer_given"):
    """Answer of `target` to the step that asked: an opinion (`text`), its result, or why there will be none.

    provenance: what an opinion rests on. It was made by a model out of that, and is to be trusted no more.
    """

    ask_id: Token
    step_id: Token
    target: Token
    outcome: Literal["answered", "refused"]
    text: PeerText = ""
    result: Result | None = None
    failure: Failure | None = None
    provenance: Annotated[tuple[Label, ...], Field(max_length=bounds.MAX_LABELS)] = ()
