"""The read model of tasks: feeds, views, index and event streams."""
