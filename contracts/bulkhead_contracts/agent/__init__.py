"""Latest version of the agent messages."""

from .v1 import *
