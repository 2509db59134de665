"""What agents do: wait for each other, loop, gather evidence."""
