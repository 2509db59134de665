"""The agent door: the mesh as an A2A agent, over the gateway's HTTP API."""
