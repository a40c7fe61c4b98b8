"""Failures, rehearsed: each drill breaks the local stack under load, mends it, and compares that with what is promised.

``python -m drills --help`` tells how to run them; docs/drills.md holds the results.
"""
