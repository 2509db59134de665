"""Why a task waits, was refused, was halted or ended as it did: reasons from its messages."""
