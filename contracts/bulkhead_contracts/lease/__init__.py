"""Latest version of the lease messages."""

from .v1 import *
