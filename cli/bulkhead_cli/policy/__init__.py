"""`bulkhead policy`: check, test, explain and compare policies of tools, and decide about recorded calls."""
