"""The room of the search and its palette."""
