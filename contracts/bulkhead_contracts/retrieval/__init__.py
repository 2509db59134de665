"""Latest version of the retrieval messages."""

from .v1 import *
