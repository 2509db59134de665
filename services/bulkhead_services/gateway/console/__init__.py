"""The console: pages for people, made of answers of the API alone."""
