"""Cached responses, in process memory and in Redis."""
