"""Latest version of the peer messages."""

from .v1 import *
