"""Latest version of the events for subscribers."""

from .v1 import *
