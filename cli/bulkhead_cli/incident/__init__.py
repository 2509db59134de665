"""`bulkhead incident`: one file with all that an on-call needs."""
