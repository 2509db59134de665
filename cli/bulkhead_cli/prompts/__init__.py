"""Commands on prompts: versions, releases, labels, and files of them."""
