"""What `devin-sessions` does and how it looks on a terminal. Nothing else may import from here.

Light to import: `interrupts` has to be in place before anything that takes seconds.
"""
