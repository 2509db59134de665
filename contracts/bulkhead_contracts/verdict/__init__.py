"""Latest version of the verdict messages."""

from .v1 import *
