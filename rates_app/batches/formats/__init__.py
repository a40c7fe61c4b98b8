"""File formats of batches: recognise, slice, parse and validate."""
