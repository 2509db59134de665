"""Commands about remote A2A agents: pinning their cards, and looking whether they changed."""
