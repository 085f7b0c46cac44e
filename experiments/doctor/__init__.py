"""Doctor: whether a machine trains right, from its packages to a whole training.

A part (parts.py) is a list of checks; each check runs in a process of its own within a time limit (supervise.py), so
that a driver that hangs or a device without memory is a verdict, and the next check runs.
"""
