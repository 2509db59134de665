"""Composition root of identity: the broker asks about logins, `tokens` verifies, `core` decides, `effects` answers."""

from bulkhead.runtime.context import Context
from bulkhead.runtime.process.main import main
from bulkhead_services.identity.effects import LoginAnswers
from bulkhead_services.identity.settings import Settings


def build(context: Context, settings: Settings) -> LoginAnswers:
    """The edge; keys and permissions are read at `start`."""
    return LoginAnswers(context, settings)


if __name__ == "__main__":
    main("identity", build, Settings)
