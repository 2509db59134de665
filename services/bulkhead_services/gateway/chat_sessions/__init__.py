"""Sessions of people: conversations over tasks, with a memory whose size stays bounded."""
