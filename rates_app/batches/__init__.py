"""All-or-nothing ingest: accept, slice, stage, verify, publish; and withdraw.

The same functions serve in-process workers (``engine``) and Spark executors; what has happened is in the ledger, so
a process that is killed at any point is followed by another that goes on where it stopped.
"""
