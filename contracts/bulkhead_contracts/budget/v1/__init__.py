"""Money: reserved before a call, settled after it, halted when the ceiling is reached."""

from bulkhead_contracts.settlement import *

from .alerts import *
from .calls import *
from .coordination import *
from .dead_letters import *
from .ledger import *
from .limits import *
from .mesh import *
from .spending import *
from .subscribers import *
