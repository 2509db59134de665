"""Latest version of the messages about the journal."""

from .v1 import *
