"""Compare the speed of the ingest with other ways to load the same rows."""
