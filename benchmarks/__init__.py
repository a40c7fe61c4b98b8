"""Comparisons that anybody can run again."""
