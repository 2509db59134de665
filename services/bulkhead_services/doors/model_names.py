"""The models that a tenant's calls can name, as the model gateway tells them.

In: a claim. Out: names and contexts, kept for `KEEP_MS`.
"""

from bulkhead.bounded_dict import BoundedDict
from bulkhead.bus.port import BusUnavailable
from bulkhead.callers.questions import ask_service
from bulkhead.runtime.context import Context
from bulkhead.runtime.errors import RpcRefused
from bulkhead_contracts.model import ModelsReplied, ModelsRequested
from bulkhead_contracts.task import RequesterClaim
from bulkhead_services.doors import refusals
from bulkhead_services.doors.port import DoorRefusal

KEEP_MS = 30_000
MAX_KEPT = 1_000
TASK = "doors-models"
"""Stands for the task in the request's subject: it is about none."""


class ModelNames:
    """Names from the model gateway, by tenant."""

    def __init__(self, context: Context) -> None:
        self._context = context
        self._kept = BoundedDict[str, tuple[int, ModelsReplied]](MAX_KEPT)

    async def list_names(self, claim: RequesterClaim) -> tuple[str, ...]:
        """The names. Raises DoorRefusal."""
        return (await self._ask_gateway(claim)).names

    async def most_context_tokens(self, claim: RequesterClaim, model: str) -> int:
        """The largest context of what may answer under a name, of a name that was not told that of all models; 0 where
        it is not known now."""
        try:
            reply = await self._ask_gateway(claim)
        except DoorRefusal:
            return 0
        return dict(zip(reply.names, reply.context_tokens, strict=False)).get(
            model, max(reply.context_tokens, default=0)
        )

    async def _ask_gateway(self, claim: RequesterClaim) -> ModelsReplied:
        now_ms = self._context.clock()
        cached = self._kept.get_refreshed(claim.tenant)
        if cached is not None and now_ms - cached[0] < KEEP_MS:
            return cached[1]
        try:
            index = f"models/{claim.person}/{now_ms}"
            reply = await ask_service(self._context, "model_gateway", ModelsRequested(), claim, TASK, index)
        except (BusUnavailable, RpcRefused) as error:
            raise refusals.mesh_unavailable("the model gateway, which knows the models, does not answer") from error
        assert isinstance(reply, ModelsReplied)
        self._kept[claim.tenant] = now_ms, reply
        return reply
