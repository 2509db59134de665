"""An HTTP server inside a service's event loop, with bounds on connections and on bodies."""
