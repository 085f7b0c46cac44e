"""Bench: a step against the machine's ceilings and against other people's code, and where a grid's time goes.

Each alternative runs in a process of its own (side.py); they take turns on the same cores (rounds.py), so that what a
shared machine does to one it does to the other, and what counts is the ratio within a round.
"""
