"""Latest version of the messages about sessions."""

from .v1 import *
