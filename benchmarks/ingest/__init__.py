"""How fast batches are loaded, compared with other ways to load the same rows."""
