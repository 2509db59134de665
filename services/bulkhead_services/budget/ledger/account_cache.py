"""The accounts of calls that come again: what is made of them is made once.

In: a verified grant under its token, who calls, a tenant's limits under their revision. Out: `CachedScopes`.
"""

from collections import OrderedDict
from functools import cached_property

from bulkhead_contracts.budget import ScopeLimit
from bulkhead_contracts.grant import TaskGrant
from bulkhead_services.budget.ledger.accounts import Limits, fact_scopes, scopes_of
from bulkhead_services.budget.ledger.model import NO_LIMIT, Scope, UnitSums, scopes_json

DAY_MS = 24 * 3600 * 1000
MAX_KNOWN = 1_024
"""As many as grants are known; one takes some 9 KiB, of which most is its form in a fact."""


class CachedScopes(tuple[Scope, ...]):
    """Accounts of one agent in one step on one day, under one state of the limits."""

    @cached_property
    def redis_json(self) -> str:
        """Text as the Redis ledger has it."""
        return scopes_json(self)

    @cached_property
    def fact_fields(self) -> tuple[tuple[ScopeLimit, ...], tuple[ScopeLimit, ...]]:
        """Two fields, as a fact has them."""
        return fact_scopes(self)


class ScopeCache:
    """Scopes this replica made."""

    def __init__(self, mesh_day: UnitSums = NO_LIMIT) -> None:
        self._mesh_day = mesh_day
        self._known: OrderedDict[tuple[str, str, str, int, int], CachedScopes] = OrderedDict()

    def scopes_for(
        self, token: str, grant: TaskGrant, now_unix_ms: int, *, step_id: str, agent: str, limits: Limits, revision: int
    ) -> CachedScopes:
        """See scopes_of. token: of the grant. revision: of the limits."""
        key = (token, step_id, agent, revision, now_unix_ms // DAY_MS)
        scopes = self._known.get(key)
        if scopes is None:
            scopes = self._known[key] = CachedScopes(
                scopes_of(grant, now_unix_ms, step_id=step_id, agent=agent, limits=limits, mesh_day=self._mesh_day)
            )
            while len(self._known) > MAX_KNOWN:
                self._known.popitem(last=False)
        return scopes
