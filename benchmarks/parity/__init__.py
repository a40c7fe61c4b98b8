"""Compare rollups with the rows they are built from."""
