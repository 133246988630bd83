"""The activity report: the numbers it reads, its words and charts, and the page around them.

When it is built is in `assets`. Knows nothing of `loading`, `assets` and `command`.
"""
