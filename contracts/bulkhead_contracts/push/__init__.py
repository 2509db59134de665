"""Latest version of the messages about push notifications."""

from .v1 import *
