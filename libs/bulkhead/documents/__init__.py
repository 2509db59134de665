"""Documents of strangers, read in processes of their own."""
