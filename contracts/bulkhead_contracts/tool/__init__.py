"""Latest version of the tool messages."""

from .v1 import *
