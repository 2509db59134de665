"""What a call may do: one pure decision from its grant, its tool, its arguments and where they come from."""
