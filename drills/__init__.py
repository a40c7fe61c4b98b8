"""Rehearsed failures: each drill breaks the local stack under load, repairs it, and compares effects with objectives.

``python -m drills --help`` describes how to run them; docs/drills.md contains the results.
"""
