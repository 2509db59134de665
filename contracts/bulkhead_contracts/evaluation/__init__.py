"""Latest version of the evaluation messages."""

from .v1 import *
