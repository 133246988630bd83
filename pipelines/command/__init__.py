"""The `devin-sessions` command and its output on a terminal. No other package may import from here.

Light to import: `interrupts` must be in place before imports that take seconds.
"""
