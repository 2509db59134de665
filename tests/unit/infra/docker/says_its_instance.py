"""What test_starting starts in the place of a service."""

import os

print(os.environ["BULKHEAD_INSTANCE"], __name__)
