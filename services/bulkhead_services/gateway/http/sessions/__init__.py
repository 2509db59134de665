"""Sessions over HTTP: their routes, and what the OpenAPI document says of them."""
