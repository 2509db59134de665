"""The model's draft of a plan: asked for, put off and asked again, drafted anew with notes; each bounded. Pure.

In: the state of a task without a plan; `CallDeferred`, `CallResumed` and timers of the draft's call. Out: model calls,
timers; nothing when no draft is left.
"""

from collections.abc import Callable

from bulkhead.flow import InboxMessage, Send, SetTimer, Transition, replace
from bulkhead_contracts import bounds
from bulkhead_contracts.control import CallDeferred
from bulkhead_contracts.model import DEFAULT_TIER, ModelCallRequested, Part
from bulkhead_contracts.plan import PlanNote
from bulkhead_contracts.result import Failure
from bulkhead_services.planner.state import Pause, PlannerState

TIMER = "draft-again-"
NO_CALL_WORKS = frozenset(
    {
        "rate_limited",
        "unreachable",
        "unknown_model",
        "unknown_price",
        "refused_by_policy",
        "unknown_prompt",
        "bad_grant",
        "content_missing",
        "deadline_exceeded",
    }
)
"""Why a draft failed, where any other call of the task would fail alike: no step is run then."""
PLAN_OUTPUT_TOKENS = 4_000
Failed = Callable[[PlannerState, InboxMessage, tuple[PlanNote, ...], Failure], Transition[PlannerState]]
MAX_PART_CHARS = bounds.MAX_INSTRUCTION_CHARS * 2
"""What a part of a prompt holds."""


def request_draft(state: PlannerState, message: InboxMessage, notes: tuple[str, ...]) -> Transition[PlannerState]:
    """Ask the model for a plan; `notes` say what was wrong with the last one."""
    state = replace(state, phase="drafting", drafts=state.drafts + 1, deferrals=0, draft_notes=notes, steps=())
    return Transition(state, (_draft_call(state, message),))


def draft_again(
    state: PlannerState, message: InboxMessage, notes: tuple[PlanNote, ...]
) -> Transition[PlannerState] | None:
    """Another draft after one that did not do; None when one more would be asked for in vain."""
    state = replace(state, vain=state.vain + 1)
    if state.vain >= bounds.MAX_PLAN_DRAFTS:
        return None
    texts = tuple(note.message for note in notes if note.severity == "error")[:16]
    return request_draft(state, message, texts or state.draft_notes)


def _draft_call(state: PlannerState, message: InboxMessage) -> Send:
    """The call that drafts a plan, with as much time as there is now."""
    assert state.objective is not None
    parts = [Part(kind="objective", content=state.objective), *_tool_parts(state), *_role_parts(state)]
    if state.draft_notes:
        text = "\n".join(f"- {note}" for note in state.draft_notes)
        parts.append(Part(kind="notes", text=text[: bounds.MAX_INSTRUCTION_CHARS]))
    body = ModelCallRequested(
        call_id=_call_id(state),
        attempt=state.drafts,
        prompt_id="planner.revise" if state.draft_notes else "planner.draft",
        parts=tuple(parts),
        response="plan",
        tier=state.route or DEFAULT_TIER,
        stream=False,
        max_output_tokens=PLAN_OUTPUT_TOKENS,
        roles=tuple(role.name for role in state.roles),
        deadline_unix_ms=min(state.deadline_unix_ms, message.time_unix_ms + bounds.DEFAULT_MODEL_CALL_TIMEOUT_MS),
    )
    return Send("model_gateway", body, grant=state.grant)


def _tool_parts(state: PlannerState) -> tuple[Part, ...]:
    """Tools that the task may use, in as many parts as that takes."""
    texts: list[str] = []
    for tool in state.tools:
        row = f"{tool.name}: {tool.description} ({tool.effect})"
        if texts and len(texts[-1]) + 1 + len(row) <= MAX_PART_CHARS:
            texts[-1] += f"\n{row}"
        else:
            texts.append(row)
    return tuple(Part(kind="tools", text=text) for text in texts or ("none",))


def _role_parts(state: PlannerState) -> tuple[Part, ...]:
    """Roles that may carry out a step; () where there are none, so that nothing is paid for them."""
    if not state.roles:
        return ()
    rows = (f"{role.name}: {role.description}" if role.description else role.name for role in state.roles)
    return (Part(kind="context", title="roles", text="\n".join(rows)),)


def _call_id(state: PlannerState) -> str:
    return f"plan-{state.generation}-{state.drafts}"


def is_awaited_call(state: PlannerState, call_id: str) -> bool:
    """True for the call of the draft that is made now; any other is late or repeated."""
    return state.phase == "drafting" and call_id == _call_id(state)


def on_call_deferred(
    state: PlannerState, message: InboxMessage, body: CallDeferred, failed: Failed
) -> Transition[PlannerState]:
    """The call was put off: it sleeps until its timer, or until it is resumed. No cap ends a pause.

    failed: what follows on a draft that was put off too often.
    """
    # What a call has spent until it is put off is told once, here; also that of a call nobody waits for.
    state = replace(state, usage=state.usage + body.usage)
    if not is_awaited_call(state, body.call_id):
        return Transition(state)
    pauses: tuple[Pause, ...] = ()
    after_ms = body.after_ms
    if body.paused:
        pauses = (Pause("", state.drafts, 0, body.code, body.reason),)
    elif state.deferrals >= bounds.MAX_CALL_DEFERRALS:
        reason = f"the model call was put off again and again: {body.reason}"
        return failed(state, message, (), Failure.from_text("deferred_too_often", reason))
    else:
        state = replace(state, deferrals=state.deferrals + 1)
        after_ms *= min(state.deferrals, 8)
    state = replace(state, asleep=body.call_id, pauses=pauses)
    return Transition(state, (SetTimer(f"{TIMER}{body.call_id}", message.time_unix_ms + after_ms),))


def ask_again(state: PlannerState, message: InboxMessage, call_id: str, *, resumed: bool) -> Transition[PlannerState]:
    """Repeat the call once each time it was put off: while it is out, a late timer or resume repeats nothing."""
    if not is_awaited_call(state, call_id) or state.asleep != call_id:
        return Transition(state)
    state = replace(state, asleep="", pauses=() if resumed else state.pauses)
    return Transition(state, (_draft_call(state, message),))
