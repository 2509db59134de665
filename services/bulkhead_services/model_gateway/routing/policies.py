"""Tenants' policies on where their data goes. Enters: a tenant and the models of a route. Leaves: those it allows.

They filter before any fallback, hedge or escalation. What a provider does not say of itself is not allowed.
"""

from collections.abc import Iterable, Mapping

from bulkhead_services.model_gateway.providers.port import ProviderFault
from bulkhead_services.model_gateway.routing.options import DataTerms, TenantDataPolicy

MODELS_TOLD = 5
REFUSED = "refused_by_policy"


def policy_objection(policy: TenantDataPolicy, provider: str, terms: DataTerms) -> str:
    """Objection of a policy to a model; "" when it allows it."""
    if policy.providers and provider not in policy.providers:
        return f"provider {provider} is not one of {', '.join(policy.providers)}"
    if policy.regions and terms.region not in policy.regions:
        where = f"region {terms.region}" if terms.region else "its region is not known"
        return f"{where}; allowed: {', '.join(policy.regions)}"
    if policy.retention == "none" and terms.retention != "none":
        return f"it keeps data: {terms.retention}" if terms.retention else "what it keeps is not known"
    if policy.training is False and terms.trains_on_data is not False:
        return "it trains on data" if terms.trains_on_data else "whether it trains on data is not known"
    return ""


class TenantDataPolicies:
    """The policies of all tenants; a tenant without one is unrestricted."""

    def __init__(self, policies: Mapping[str, TenantDataPolicy]) -> None:
        self._policies = policies

    def objection(self, tenant: str, provider: str, terms: DataTerms) -> str:
        """Why this tenant's calls may not go there; "" when they may."""
        policy = self._policies.get(tenant)
        return policy_objection(policy, provider, terms) if policy is not None else ""


def no_model_left_fault(tenant: str, tier: str, left_out: Iterable[str]) -> ProviderFault:
    """The end of a call for which the policy leaves no model."""
    return ProviderFault(
        REFUSED,
        f"the policy of tenant {tenant} allows no model of tier {tier}: {list_left_out(left_out)}",
        f"{policy_advice(tenant)}; nothing was sent",
        consumed=False,
        refused=True,
    )


def policy_advice(tenant: str) -> str:
    """Advice where a policy keeps a model from answering."""
    return (
        "add a model that it allows to BULKHEAD_ROUTES (region, retention and trains_on_data of its provider stand in "
        f"BULKHEAD_PROVIDERS), or change the policy of {tenant} in BULKHEAD_TENANT_POLICIES"
    )


def list_left_out(left_out: Iterable[str]) -> str:
    """The models that a policy leaves out, with the reason of each."""
    rows = list(left_out)
    overflow = f"; and {len(rows) - MODELS_TOLD} more" if len(rows) > MODELS_TOLD else ""
    return "; ".join(rows[:MODELS_TOLD]) + overflow
