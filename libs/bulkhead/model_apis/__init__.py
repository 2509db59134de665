"""The APIs in which outside agents ask models: what is passed on, what a part may cost, how another API says it."""
