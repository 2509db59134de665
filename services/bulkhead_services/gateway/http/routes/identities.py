"""The route /v1/identities: who may act in the tenant. All of it stands in files that the gateway reads anyway.

In: requests of operators and auditors. Out: people, agents and programs of their tenant; never a key or a whole digest.
"""

from collections.abc import Mapping

from starlette.routing import Route

from bulkhead.gateway_api import identities as reads
from bulkhead.quotas.tenant_quotas import TenantQuotas
from bulkhead_contracts import bounds
from bulkhead_contracts.task import RequesterClaim
from bulkhead_services.gateway.http.auth import GatewayAuthenticator
from bulkhead_services.gateway.http.query_routes import query_route
from bulkhead_services.gateway.settings import PublisherSettings, SubscriberSettings

KEY_ID_CHARS = 12


class IdentityRoutes:
    """The route. publishers, subscribers: rows of all tenants."""

    def __init__(
        self,
        auth: GatewayAuthenticator,
        publishers: Mapping[str, PublisherSettings],
        subscribers: Mapping[str, SubscriberSettings],
        quotas: TenantQuotas,
    ) -> None:
        self._auth, self._publishers, self._subscribers, self._quotas = auth, publishers, subscribers, quotas

    def routes(self) -> list[Route]:
        """Route for the application."""
        return [query_route(reads.IdentityListQuery, self._auth, self.list_identities)]

    async def list_identities(self, claim: RequesterClaim, _: reads.IdentityListQuery) -> reads.IdentityPage:
        """Those of the caller's tenant."""
        self._quotas.reload_if_changed()
        rows = sorted(self._auth.keys_of(claim.tenant), key=lambda row: (row.person, row.role, row.sha256))
        keys = tuple(
            reads.KeyDocument(
                key_id=row.sha256[:KEY_ID_CHARS],
                person=row.person,
                role=row.role,
                agent=row.agent,
                made_unix_ms=row.made_unix_ms or None,
            )
            for row in rows[: reads.MAX_KEYS_LISTED]
        )
        publishers = tuple(
            reads.PublisherDocument(name=name, person=row.person, role=row.role, agent=row.agent)
            for name, row in sorted(self._publishers.items())
            if row.tenant == claim.tenant
        )
        subscribers = tuple(
            reads.ListenerDocument(name=name, events=row.events)
            for name, row in sorted(self._subscribers.items())
            if row.tenant == claim.tenant
        )
        delegates = tuple(
            reads.DelegateDocument(role=role, to=row.to, name=row.identity or row.agent or "")
            for role, row in sorted(self._quotas.delegations_of(claim.tenant).items())
        )
        return reads.IdentityPage(
            keys=keys,
            more_keys=max(0, len(rows) - reads.MAX_KEYS_LISTED),
            tokens=self._auth.accepts_tokens,
            publishers=publishers[: reads.MAX_KEYS_LISTED],
            subscribers=subscribers[: bounds.MAX_SUBSCRIBERS],
            delegates=delegates,
        )
