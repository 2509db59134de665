"""Workflows: named, versioned plans with parameters, which run without a model that plans."""

from .v1 import *
