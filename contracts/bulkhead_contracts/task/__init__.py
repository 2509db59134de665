"""Latest version of the task messages; older ones live in their own module."""

from .v1 import *
from .v2 import TaskRejected as TaskRejected
from .v2 import TaskRequested as TaskRequested
