"""Composition root of identity: the broker asks about logins, `tokens` verifies, `core` decides, `effects` answers."""

from bulkhead.runtime.context import Context
from bulkhead_services.identity.effects import LoginAnswers
from bulkhead_services.identity.settings import Settings

SERVICE = "identity"


def build(context: Context, settings: Settings) -> LoginAnswers:
    """The edge; keys and permissions are read at `start`."""
    return LoginAnswers(context, settings)
