"""What runs, and when. Flat here: Dagster's own nouns, and what several packages stand on.

What loads is in `loading`, what a page shows in `report`, what fills a table in `assets`, what a user types in
`command`. How the outside is reached is in `resources`, what is stored in `warehouse`.
"""
