"""A policy for tests of other things: it permits every call. The product has none such."""

from bulkhead.policy.ruling import Proposal, Ruling


def permitted(proposal: Proposal) -> Ruling:
    """Whatever it is."""
    return Ruling("permit", "no-policy", "0" * 64)
