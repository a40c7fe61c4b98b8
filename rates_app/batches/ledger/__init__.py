"""The ledger: what has happened to every batch and slice."""
