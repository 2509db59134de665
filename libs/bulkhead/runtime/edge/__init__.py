"""The runtime of edges and watchers: messages and requests that are neither folded nor done once."""
