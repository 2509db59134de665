"""The right to ask budget what all people of a tenant do: one rule for every such question. Pure.

In: who asks, as the gateway established it, and the tenant that the message is of. Out: a failure, or None.
"""

from bulkhead_contracts.result import Failure
from bulkhead_contracts.task import RequesterClaim

MAY_READ = ("operator", "auditor")
"""Roles that see what all people of a tenant do."""


def check_reader(who: RequesterClaim, tenant: str, action: str, roles: tuple[str, ...] = MAY_READ) -> Failure | None:
    """Why this person may not; action: a verb and its object."""
    if who.tenant == tenant and who.role in roles:
        return None
    reason = f"the role {who.role} of tenant {who.tenant} may not {action}"
    return Failure.from_text("forbidden", reason, f"ask an {' or '.join(roles)} of that tenant")
