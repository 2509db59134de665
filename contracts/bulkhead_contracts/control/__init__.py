"""Latest version of the control messages."""

from .v1 import *
