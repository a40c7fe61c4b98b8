"""Check the stores, the ledger and the public address, and name the runbook of each problem."""
