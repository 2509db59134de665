"""One tool outside a mesh, under the checks that the executor makes: arguments against the schema, policy, its process,
its time, its credentials, its result. Nothing is admitted, retried or recorded.

In: packs and settings, then calls. Out: what became of each. The stage `memory` brings the executor.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, Protocol

from bulkhead.client.loop_thread import LoopThread
from bulkhead.testing.assertions import refute
from bulkhead.testing.mesh_backend import find_stage

Ended = Literal["succeeded", "refused", "failed", "uncertain"]


@dataclass(frozen=True, slots=True)
class ToolOutcome:
    """Outcome of one attempt, as an agent is told it. refused: it was not begun. uncertain: it may have written.

    missing: what the result lacks. sensitive: kinds of personal data and keys in it. policy: permit, ask or
    forbid, by `rule`; "" where the call did not come so far.
    """

    tool: str
    outcome: Ended
    text: str = ""
    code: str = ""
    message: str = ""
    hint: str = ""
    missing: tuple[str, ...] = ()
    sensitive: tuple[str, ...] = ()
    took_ms: int = 0
    policy: str = ""
    rule: str = ""

    def succeeded(self) -> "ToolOutcome":
        """Fails when it did not, or not wholly."""
        __tracebackhide__ = True
        if self.outcome != "succeeded" or self.missing:
            refute(f"{self.tool} succeeded", f"{self}")
        return self

    def failed(self, code: str, outcome: Ended = "failed") -> "ToolOutcome":
        """Fails when it did not fail by this name."""
        __tracebackhide__ = True
        if (self.outcome, self.code) != (outcome, code):
            refute(f"{self.tool} {outcome} as {code}", f"{self}")
        return self


class Trial(Protocol):
    """The executor, started for trials. Raises ValueError where a pack cannot be used."""

    async def call(self, tool: str, arguments: str, *, tenant: str, user: str, key: str, approve: bool) -> ToolOutcome:
        """One attempt; arguments are JSON, as a model writes them. approve: where policy asks, a person agrees."""
        ...

    async def close(self) -> None:
        """End its processes."""
        ...


def open_trial(packs: tuple[str, ...], settings: Mapping[str, Any]) -> Trial:
    """A trial of the tools of these packs. Raises StageMissing, and ValueError where a pack cannot be used."""
    trial: Trial = find_stage("memory").tool_trial(packs, settings)
    return trial


class ToolUnderTest:
    """The fixture `run_tool`: calls tools as the executor does."""

    def __init__(self, trial: Trial, loop: LoopThread) -> None:
        self._trial, self._loop = trial, loop
        self._calls = 0

    def __call__(
        self,
        tool: str,
        arguments: Mapping[str, Any] | str,
        *,
        tenant: str = "acme",
        user: str = "ann",
        key: str = "",
        approve: bool = True,
    ) -> ToolOutcome:
        """One attempt. key: of an earlier call, to make the same call again. approve: False where nobody agrees to what
        policy asks about."""
        self._calls += 1
        words = arguments if isinstance(arguments, str) else json.dumps(dict(arguments))
        key = key or f"call-{self._calls}"
        call = self._trial.call(tool, words, tenant=tenant, user=user, key=key, approve=approve)
        outcome: ToolOutcome = self._loop.run(call)
        return outcome
