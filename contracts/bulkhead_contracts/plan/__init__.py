"""Latest version of the plan messages."""

from .v1 import *
