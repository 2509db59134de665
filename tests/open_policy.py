"""A policy for tests of other things: it permits every call. The product has none such."""

from bulkhead.policy.ruling import CallProposal, CallRuling


def permitted(proposal: CallProposal) -> CallRuling:
    """Whatever it is."""
    return CallRuling("permit", "no-policy", "0" * 64)
