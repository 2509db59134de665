"""One pure decision on what a call may do: from its grant, its tool, its arguments and where they come from."""
