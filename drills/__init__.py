"""Rehearsed failures: each drill breaks the local stack under load, repairs it, and compares the effects with goals.

``python -m drills --help`` tells how to run them; docs/drills.md holds the results.
"""
