"""What runs, and when: Dagster's own nouns and what several packages build on are flat modules here.

Loading is in `loading`, the report's page in `report`, the assets in `assets`, the command line in `command`. The API
and databases are reached through `resources`; `warehouse` is what is stored.
"""
