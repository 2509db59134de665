"""Latest version of the model messages."""

from .v1 import *
