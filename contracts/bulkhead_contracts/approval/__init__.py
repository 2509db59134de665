"""Latest version of the approval messages."""

from .v1 import *
