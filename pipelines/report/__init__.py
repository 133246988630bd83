"""The activity report: what it reads, in which words and charts it shows that, and the page around them.

When it is built is in `assets`. Knows nothing of `loading`, `assets` and `command`.
"""
