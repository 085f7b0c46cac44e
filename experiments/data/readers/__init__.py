"""Readers of well-known data sets' files. Each answers as raw.py asks; the first one that finds its files reads them.

A source that one of them knows is read by it, whatever lies beside its files.
"""
