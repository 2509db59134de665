"""Latest version of the prompt messages."""

from .v1 import *
