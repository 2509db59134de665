"""Composition root of signer: requests for authority come in, `core` decides, `effects` signs."""

from bulkhead.runtime.context import Context
from bulkhead_services.signer.effects import GrantSigner
from bulkhead_services.signer.settings import Settings

SERVICE = "signer"


def build(context: Context, settings: Settings) -> GrantSigner:
    """The edge; the policy is read at `start`."""
    return GrantSigner(context, settings)
