"""Start: `python -m bulkhead_cli.containers`."""

import sys

from bulkhead_cli.containers.commands import main

sys.exit(main(sys.argv[1:]))
