"""All-or-nothing ingest: accept, slice, stage, verify, publish; and withdraw.

In-process workers (``engine``) and Spark executors run the same functions. The ledger records their progress, so
another process resumes the work of a process that was killed at any point.
"""
