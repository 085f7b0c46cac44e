"""The parity ladder: two backends, precisions or devices, compared from the names of their parameters to their metrics.

Each side runs in a process of its own (side.py) and writes what it computes into a folder; ladder.py compares the two
folders rung by rung and names the first place where they part; formula.py says which optimizer term is at fault.
"""
