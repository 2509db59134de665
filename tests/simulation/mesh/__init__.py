"""The mesh that is simulated: its event loop, network, Redis, outside world and people, and what goes wrong."""
