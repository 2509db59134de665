"""Events from outside: their names and keys, and the steps that wait for them."""
