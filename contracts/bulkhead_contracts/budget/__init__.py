"""Latest version of the budget messages."""

from .v1 import *
