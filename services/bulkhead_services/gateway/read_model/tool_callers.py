"""Tasks that called a tool, also where the call failed or was refused: of these no result of the task tells.

In: a tool's name and how far back. Out: ids of tasks, as budget finds them in the journal, remembered for a moment: a
list is read again at every change.
"""

import asyncio
import secrets

from bulkhead.bounded_dict import BoundedDict
from bulkhead.bus.port import BusUnavailable, PublishRefused
from bulkhead.runtime.context import Context
from bulkhead.runtime.errors import RpcRefused
from bulkhead_contracts import bounds
from bulkhead_contracts.budget import CallsReplied, CallsRequested
from bulkhead_contracts.catalog import DecodeError
from bulkhead_contracts.task import RequesterClaim
from bulkhead_services.gateway.problems import Problem, unavailable

KEPT_S = 3.0
MAX_KEPT = 256
ACCOUNTS = "limits"
"""The task token in the subject of a request that concerns no task."""
HINT = "leave `tool` out, or send a shorter `since`"


class ToolCallers:
    """Asks budget, for all tenants of this replica."""

    def __init__(self, context: Context) -> None:
        self._context = context
        self._kept = BoundedDict[tuple[str, str, int], tuple[float, frozenset[str]]](MAX_KEPT)

    async def find_tasks(self, claim: RequesterClaim, tool: str, since_s: int) -> frozenset[str]:
        """The tenant's tasks that called this tool since then. Raises Problem where nobody can tell."""
        key, now_s = (claim.tenant, tool, since_s), asyncio.get_running_loop().time()
        kept = self._kept.get(key)
        if kept is not None and now_s - kept[0] < KEPT_S:
            return kept[1]
        ask = CallsRequested(requester=claim, since_s=since_s, kind="tool", name=tool, tasks_only=True)
        try:
            reply = await self._context.publisher.request(
                "budget",
                ask,
                tenant=claim.tenant,
                task=ACCOUNTS,
                index=f"callers/{secrets.token_hex(8)}",
                actor=claim.person,
                timeout_s=bounds.SPEND_TIMEOUT_MS / 1_000,
            )
        except (BusUnavailable, PublishRefused, RpcRefused, DecodeError) as error:
            raise unavailable(f"budget, which reads the journal, does not answer: {error}", HINT) from error
        assert isinstance(reply, CallsReplied)
        if (failure := reply.failure) is not None:
            if failure.code != "too_much":
                raise unavailable(failure.message, failure.hint)
            raise Problem(422, failure.code, "Too many calls to look through", failure.message, HINT)
        tasks = frozenset(reply.tasks)
        self._kept[key] = now_s, tasks
        return tasks
