"""The journal as people read it: pages, a task's history in order, its timeline."""
