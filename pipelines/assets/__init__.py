"""The assets, one module per table or file that they fill, and their entries in the catalogue.

Loading is in `loading`, the contents of the page in `report`. Imports nothing from `command`.
"""
