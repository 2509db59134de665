"""Latest version of the tool messages."""

from .v1 import *  # noqa: F403
