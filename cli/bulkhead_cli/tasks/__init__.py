"""Commands on tasks and documents: submit, show, follow, cancel."""
