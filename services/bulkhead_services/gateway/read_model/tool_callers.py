"""Tasks that called a tool, also where the call failed or was refused: of these no result of the task tells.

In: a tool's name and how far back. Out: ids of tasks, as budget finds them in the journal, and what they may lack;
remembered for a moment, also that budget could not tell: a list is read again at every change.
"""

import asyncio
import secrets
from functools import partial
from typing import NamedTuple

from bulkhead.bounded_dict import BoundedDict
from bulkhead.bus.port import BusUnavailable, PublishRefused
from bulkhead.runtime.context import Context
from bulkhead.runtime.errors import RpcRefused
from bulkhead_contracts import bounds
from bulkhead_contracts.budget import CallsReplied, CallsRequested
from bulkhead_contracts.catalog import DecodeError
from bulkhead_contracts.result import Failure
from bulkhead_contracts.task import RequesterClaim
from bulkhead_services.gateway.read_model.shared_reads import SharedReads

KEPT_S, FAILURE_KEPT_S = 3.0, 10.0
MAX_KEPT = 256
ROUNDED_S = 60
"""A period is rounded up to this: one that begins at a fixed moment grows by the second."""
ACCOUNTS = "limits"
"""The task token in the subject of a request that concerns no task."""


class CallingTasks(NamedTuple):
    """Tasks that called a tool. note: why some may be missing, and what to do; "" where all are there."""

    tasks: frozenset[str] = frozenset()
    note: str = ""


class ToolCallers:
    """Asks budget, for all tenants of this replica: once at a time for the same tool and period."""

    def __init__(self, context: Context) -> None:
        self._context = context
        self._kept = BoundedDict[tuple[str, str, str, int], tuple[float, CallingTasks]](MAX_KEPT)
        """With the moment until which they are used."""
        self._reads = SharedReads[CallingTasks](rest_s=0)

    async def find_tasks(self, claim: RequesterClaim, tool: str, since_s: int) -> CallingTasks:
        """The tenant's tasks that called this tool since then, as far as budget can tell."""
        since_s = min(-(-since_s // ROUNDED_S) * ROUNDED_S, bounds.MAX_SPEND_S)
        key = claim.tenant, claim.role, tool, since_s  # A refusal is of a role.
        if (kept := self._find_kept(key)) is not None:
            return kept
        return await self._reads.get(key, partial(self._read_tasks, key, claim))

    def _find_kept(self, key: tuple[str, str, str, int]) -> CallingTasks | None:
        until_s, tasks = self._kept.get(key, (0.0, None))
        return tasks if asyncio.get_running_loop().time() < until_s else None

    async def _read_tasks(self, key: tuple[str, str, str, int], claim: RequesterClaim) -> CallingTasks:
        # Who came while this was read waits for the next reading, and needs none.
        if (kept := self._find_kept(key)) is not None:
            return kept
        try:
            reply = await self._ask_budget(key, claim)
        except (BusUnavailable, PublishRefused, RpcRefused, DecodeError) as error:
            reason = f"budget, which reads the journal, does not answer: {error}"
            reply = CallsReplied(failure=Failure.from_text("unavailable", reason, "ask again in a moment"))
        failed = reply.failure is not None
        tasks = CallingTasks(frozenset(reply.tasks), _describe_lack(reply))
        self._kept[key] = asyncio.get_running_loop().time() + (FAILURE_KEPT_S if failed else KEPT_S), tasks
        return tasks

    async def _ask_budget(self, key: tuple[str, str, str, int], claim: RequesterClaim) -> CallsReplied:
        _, _, tool, since_s = key
        reply = await self._context.publisher.request(
            "budget",
            CallsRequested(requester=claim, since_s=since_s, kind="tool", name=tool, tasks_only=True),
            tenant=claim.tenant,
            task=ACCOUNTS,
            index=f"callers/{secrets.token_hex(8)}",
            actor=claim.person,
            timeout_s=bounds.SPEND_TIMEOUT_MS / 1_000,
        )
        assert isinstance(reply, CallsReplied)
        return reply


def _describe_lack(reply: CallsReplied) -> str:
    if (failure := reply.failure) is not None:
        return (
            f"tasks whose calls of this tool failed or were refused may be missing: {failure.message}; {failure.hint}"
        )
    if reply.more:
        return f"{reply.more:,} older tasks that called this tool may be missing; send a shorter `since`"
    return ""
