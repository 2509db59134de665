"""Posts to addresses of tenants and of their clients."""
