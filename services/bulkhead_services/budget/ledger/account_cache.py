"""The accounts of calls that come again: what is made of them is made once.

In: a verified grant under its token, who calls, a tenant's limits under their revision. Out: `Scopes`.
"""

from collections import OrderedDict
from functools import cached_property

from bulkhead_contracts.budget import ScopeLimit
from bulkhead_contracts.grant import TaskGrant
from bulkhead_services.budget.ledger.accounts import IN_FIRST, Limits, scopes_of
from bulkhead_services.budget.ledger.model import NO_LIMIT, Scope, Sum, scope_limits, scopes_json

DAY_MS = 24 * 3600 * 1000
MAX_KNOWN = 1_024
"""As many as grants are known; one takes some 9 KiB, of which most is its form in a fact."""


class Scopes(tuple[Scope, ...]):
    """Of one agent in one step on one day, under one state of the limits."""

    @cached_property
    def json(self) -> str:
        """As the Redis ledger has them."""
        return scopes_json(self)

    @cached_property
    def in_fact(self) -> tuple[tuple[ScopeLimit, ...], tuple[ScopeLimit, ...]]:
        """As a fact has them: its two fields."""
        rows = scope_limits(self)
        return rows[:IN_FIRST], rows[IN_FIRST:]


class ScopeBook:
    """What this replica has made."""

    def __init__(self, mesh_day: Sum = NO_LIMIT) -> None:
        self._mesh_day = mesh_day
        self._known: OrderedDict[tuple[str, str, str, int, int], Scopes] = OrderedDict()

    def of(
        self, token: str, grant: TaskGrant, now_unix_ms: int, *, step_id: str, agent: str, limits: Limits, revision: int
    ) -> Scopes:
        """See scopes_of. token: of the grant. revision: of the limits."""
        key = (token, step_id, agent, revision, now_unix_ms // DAY_MS)
        found = self._known.get(key)
        if found is None:
            found = self._known[key] = Scopes(
                scopes_of(grant, now_unix_ms, step_id=step_id, agent=agent, limits=limits, mesh_day=self._mesh_day)
            )
            while len(self._known) > MAX_KNOWN:
                self._known.popitem(last=False)
        return found
