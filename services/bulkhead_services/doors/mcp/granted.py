"""The tools that a caller's tenant is granted, as the signer tells them.

In: a claim. Out: specs, kept for `KEEP_MS`. A tenant for which the tenants file names no tools has none, and the signer
is not asked.
"""

from bulkhead.bounded_dict import BoundedDict
from bulkhead.bus.port import BusUnavailable
from bulkhead.callers.questions import asked
from bulkhead.runtime.context import Context
from bulkhead.runtime.errors import RpcRefused
from bulkhead.tenant_quotas import TenantQuotas
from bulkhead_contracts.grant import ToolsReplied, ToolsRequested
from bulkhead_contracts.task import RequesterClaim
from bulkhead_contracts.tool import ToolSpec
from bulkhead_services.doors import refusals
from bulkhead_services.doors.port import Refusal

KEEP_MS = 30_000
MAX_KEPT = 1_000
TASK = "doors-tools"
"""Stands for the task in the request's subject: it is about none."""


class GrantedTools:
    """What the signer said, by tenant, role and kind of credential."""

    def __init__(self, context: Context, quotas: TenantQuotas) -> None:
        self._context, self._quotas = context, quotas
        self._kept = BoundedDict[tuple[str, str, str], tuple[int, ToolsReplied]](MAX_KEPT)

    async def specs(self, claim: RequesterClaim) -> tuple[ToolSpec, ...]:
        """The tools. Raises Refusal."""
        reply = await self._reply(claim)
        if (failure := reply.failure) is not None:
            raise Refusal(403, failure.code, failure.message, failure.hint)
        return reply.tools

    async def names(self, claim: RequesterClaim) -> tuple[str, ...]:
        """Their names, for a run's plan; none for whom the signer will refuse the run anyway. Raises Refusal."""
        return tuple(tool.name for tool in (await self._reply(claim)).tools)

    async def _reply(self, claim: RequesterClaim) -> ToolsReplied:
        self._quotas.look()
        if not self._quotas.tools(claim.tenant):
            return ToolsReplied()
        key, now = (claim.tenant, claim.role, claim.via), self._context.clock()
        kept = self._kept.use(key)
        if kept is not None and now - kept[0] < KEEP_MS:
            return kept[1]
        try:
            question = ToolsRequested(requester=claim)
            reply = await asked(self._context, "signer", question, claim, TASK, f"tools/{claim.person}/{now}")
        except (BusUnavailable, RpcRefused) as error:
            raise refusals.unavailable("the signer, which knows the tools of your tenant, does not answer") from error
        assert isinstance(reply, ToolsReplied)
        if reply.failure is None:
            self._kept[key] = now, reply
        return reply
