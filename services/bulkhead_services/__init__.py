"""The services of the mesh, each in its own package.

httpx imports its command line, and with it click and rich, wherever they are installed: 4 MB in each process that
speaks HTTP. A module that is None here counts as not installed.
"""

import sys

sys.modules.setdefault("httpx._main", None)  # type: ignore[arg-type]
