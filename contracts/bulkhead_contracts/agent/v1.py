"""Warnings to an agent from outside of its own loop: that it waits in a circle, that it seems to go round in
circles.

Its next turn shows it, so that it can act on it.
"""

from typing import Annotated

from pydantic import Field

from bulkhead_contracts import bounds

from ..types import Body, Reason, Summary, Token


class WaitRefused(Body, type="mesh.agent.wait_refused"):
    """This wait closes a circle in which no step can go on; it was chosen to give way. The first of {answer, this}
    wins.

    wait_id: the ask or the lease that is waited for. cycle: who waits for whom, in order, as `task/step` and resources.
    """

    trip: Token
    wait_id: Token
    step_id: Token
    cycle: Annotated[tuple[Summary, ...], Field(max_length=bounds.MAX_TRIP_AGENTS)]
    reason: Reason
    hint: Reason = ""


class AgentWarned(Body, type="mesh.agent.warned"):
    """A detector has found something about this agent that is not yet worth stopping. step_id: "" for all of a task."""

    trip: Token
    step_id: Annotated[str, Field(max_length=bounds.MAX_NAME_CHARS)] = ""
    what: Reason
    hint: Reason = ""
