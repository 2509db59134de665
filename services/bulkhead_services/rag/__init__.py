"""Documents in, passages out: the only service that touches the document store."""
