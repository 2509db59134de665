"""Latest version of the step messages."""

from .v1 import *
