"""The tools that a caller's tenant is granted, as the signer tells them.

In: a claim. Out: specs, kept for `KEEP_MS`. A tenant for which the tenants file names no tools has none, and the signer
is not asked.
"""

from bulkhead.bounded_dict import BoundedDict
from bulkhead.bus.port import BusUnavailable
from bulkhead.callers.questions import ask_service
from bulkhead.quotas.tenant_quotas import TenantQuotas
from bulkhead.runtime.context import Context
from bulkhead.runtime.errors import RpcRefused
from bulkhead_contracts.grant import ToolsReplied, ToolsRequested
from bulkhead_contracts.task import RequesterClaim
from bulkhead_contracts.tool import ToolSpec
from bulkhead_services.doors import refusals
from bulkhead_services.doors.port import DoorRefusal

KEEP_MS = 30_000
MAX_KEPT = 1_000
TASK = "doors-tools"
"""Stands for the task in the request's subject: it is about none."""


class GrantedTools:
    """Replies of the signer, by tenant, role and kind of credential."""

    def __init__(self, context: Context, quotas: TenantQuotas) -> None:
        self._context, self._quotas = context, quotas
        self._kept = BoundedDict[tuple[str, str, str], tuple[int, ToolsReplied]](MAX_KEPT)

    async def list_specs(self, claim: RequesterClaim) -> tuple[ToolSpec, ...]:
        """The tools. Raises DoorRefusal."""
        reply = await self._fetch_reply(claim)
        if (failure := reply.failure) is not None:
            raise DoorRefusal(403, failure.code, failure.message, failure.hint)
        return reply.tools

    async def list_names(self, claim: RequesterClaim) -> tuple[str, ...]:
        """Their names, for a run's plan; none for whom the signer will refuse the run anyway. Raises DoorRefusal."""
        return tuple(tool.name for tool in (await self._fetch_reply(claim)).tools)

    async def _fetch_reply(self, claim: RequesterClaim) -> ToolsReplied:
        self._quotas.reload_if_changed()
        if not self._quotas.tools_of(claim.tenant):
            return ToolsReplied()
        key, now_ms = (claim.tenant, claim.role, claim.via), self._context.clock()
        cached = self._kept.get_refreshed(key)
        if cached is not None and now_ms - cached[0] < KEEP_MS:
            return cached[1]
        try:
            question = ToolsRequested(requester=claim)
            reply = await ask_service(self._context, "signer", question, claim, TASK, f"tools/{claim.person}/{now_ms}")
        except (BusUnavailable, RpcRefused) as error:
            raise refusals.mesh_unavailable(
                "the signer, which knows the tools of your tenant, does not answer"
            ) from error
        assert isinstance(reply, ToolsReplied)
        if reply.failure is None:
            self._kept[key] = now_ms, reply
        return reply
