"""Several processes that serve one model as one server: one port, one scrape, one memory of labels."""
