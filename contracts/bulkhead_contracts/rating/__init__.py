"""Latest version of the messages about ratings."""

from .v1 import *
