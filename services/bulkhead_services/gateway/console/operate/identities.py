"""The room of keys and identities: who may act in the tenant, and what each role may do.

In: visits. Out: a page. No request over HTTP gives anybody rights, so there is no form: keys are made and withdrawn on
the machine of the mesh, and the page has the commands.
"""

from starlette.responses import Response
from starlette.routing import Route

from bulkhead.gateway_api.query import APPROVERS, EVERY_ROLE, OPERATORS, OVERSEERS, SUBMITTERS, AllowedRoles
from bulkhead_services.gateway.console.visits import ConsoleRoutes, Visit

ROLES = ("submitter", "approver", "operator", "auditor")
ROLE_RIGHTS: tuple[tuple[str, AllowedRoles], ...] = (
    ("Read tasks, answers, documents, approvals, tools, halts, breakers and limits", EVERY_ROLE),
    ("Submit, cancel, retry and fork tasks; add and erase documents", SUBMITTERS),
    ("Decide about calls that wait; settle uncertain writes", APPROVERS),
    ("See spending, coordination, policies, dead letters, keys and the load of the mesh", OVERSEERS),
    ("Halt, resume, reset breakers, change limits, top up, dismiss dead letters", OPERATORS),
)
"""Acts, with the roles of the API that may do them."""


class ConsoleIdentityRoutes(ConsoleRoutes):
    """The route /identities."""

    def routes(self) -> list[Route]:
        """Route of the page of identities."""
        return [self.factory.get_route("/identities", self.show_identities)]

    async def show_identities(self, visit: Visit) -> Response:
        """GET /identities"""
        page = await visit.get_or("/v1/identities", {"keys": [], "publishers": [], "subscribers": [], "delegates": []})
        loads = await visit.get_or("/v1/subscribers", {"subscribers": []})
        return visit.render_page(
            "identities/identities.html",
            identities=page,
            refused=page.get("refused"),
            loads={row["name"]: row for row in loads["subscribers"]},
            rights=[(act, [role for role in ROLES if role in allowed.names]) for act, allowed in ROLE_RIGHTS],
        )
