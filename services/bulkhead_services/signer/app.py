"""Composition root of signer: requests for authority come in, `core` decides, `effects` signs."""

from bulkhead.runtime.context import Context
from bulkhead.runtime.process.main import main
from bulkhead_services.signer.effects import GrantSigner
from bulkhead_services.signer.settings import Settings


def build(context: Context, settings: Settings) -> GrantSigner:
    """The edge; the policy is read at `start`."""
    return GrantSigner(context, settings)


if __name__ == "__main__":
    main("signer", build, Settings)
