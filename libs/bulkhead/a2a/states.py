"""A2A's names of the states of tasks, by status of the mesh."""

from collections.abc import Mapping

STATES: Mapping[str, str] = {
    "requested": "TASK_STATE_SUBMITTED",
    "queued": "TASK_STATE_SUBMITTED",
    "running": "TASK_STATE_WORKING",
    "paused": "TASK_STATE_WORKING",
    "succeeded": "TASK_STATE_COMPLETED",
    "failed": "TASK_STATE_FAILED",
    "halted": "TASK_STATE_FAILED",
    "cancelled": "TASK_STATE_CANCELED",
    "rejected": "TASK_STATE_REJECTED",
}
"""A status that is not here is one of a newer gateway."""
WORKING, ASKS = "TASK_STATE_WORKING", "TASK_STATE_INPUT_REQUIRED"


def a2a_state(status: str, asks: bool) -> str:
    """asks: a call of it waits for a person."""
    return ASKS if asks and status == "paused" else STATES.get(status, WORKING)
