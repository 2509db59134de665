"""Latest version of the identity messages."""

from .v1 import *
