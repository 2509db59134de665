"""Latest version of settlements."""

from .v1 import *
