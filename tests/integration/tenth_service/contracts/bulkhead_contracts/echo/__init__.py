"""Latest version of the echo messages."""

from .v1 import *
