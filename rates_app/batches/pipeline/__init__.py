"""Take a batch from its delivery to its publication."""
