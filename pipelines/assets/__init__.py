"""The assets, a module for each table or file that they fill, and what the catalogue says of them.

How a load goes is in `loading`, what the page holds in `report`. Knows nothing of `command`.
"""
