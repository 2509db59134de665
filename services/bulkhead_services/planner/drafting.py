"""The model call that drafts a plan. A leaf, pure.

In: the state of a task without a plan, and notes on what was wrong with the last one. Out: the call.
"""

from bulkhead.flow import InboxMessage, Send, Transition, replace
from bulkhead_contracts import bounds
from bulkhead_contracts.model import DEFAULT_TIER, ModelCallRequested, Part
from bulkhead_services.planner.state import PlannerState

PLAN_OUTPUT_TOKENS = 4_000
MAX_PART_CHARS = bounds.MAX_INSTRUCTION_CHARS * 2
"""Bound of one part of a prompt."""


def request_draft(state: PlannerState, message: InboxMessage, notes: tuple[str, ...]) -> Transition[PlannerState]:
    """Ask the model for a plan; `notes` say what was wrong with the last one."""
    state = replace(state, phase="drafting", drafts=state.drafts + 1, deferrals=0, draft_notes=notes, steps=())
    return Transition(state, (build_draft_call(state, message),))


def build_draft_call(state: PlannerState, message: InboxMessage) -> Send:
    """The call that drafts a plan, with as much time as there is now."""
    assert state.objective is not None
    parts = [Part(kind="objective", content=state.objective), *_tool_parts(state), *_role_parts(state)]
    if state.draft_notes:
        text = "\n".join(f"- {note}" for note in state.draft_notes)
        parts.append(Part(kind="notes", text=text[: bounds.MAX_INSTRUCTION_CHARS]))
    body = ModelCallRequested(
        call_id=state.draft_call_id,
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
