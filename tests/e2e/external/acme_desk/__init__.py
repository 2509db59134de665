"""The service desk: a role and a tool for a Bulkhead mesh."""
