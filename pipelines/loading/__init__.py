"""From the API to the warehouse: which questions are asked, what they add up to, and what became of each day.

How a question travels is in `resources`. Knows nothing of `assets`, `report` and `command`.
"""
