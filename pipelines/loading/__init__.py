"""From the API to the warehouse: which questions are asked, what the answers add up to, what became of each day.

Requests are sent in `resources`. Imports nothing from `assets`, `report` or `command`.
"""
