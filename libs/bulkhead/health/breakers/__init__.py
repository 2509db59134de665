"""Circuit breakers as pure state machines."""
