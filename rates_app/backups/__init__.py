"""Physical backups of a PostgreSQL that we run ourselves, by its own tools: base backups, archived WAL, restores.

RDS does this for itself; docs/decisions/0065-backups.md says when these are the ones to use.
"""
