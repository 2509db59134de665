"""The HTTP edge: server, authentication, schemas, request bounds, routes."""
