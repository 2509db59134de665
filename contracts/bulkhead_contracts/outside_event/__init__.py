"""Latest version of the messages about events from outside."""

from .v1 import *
