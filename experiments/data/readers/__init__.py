"""Readers of the files in which well-known data sets are handed on. Each is as raw.py says; the first that finds reads.

A source that one of them knows is read by it, whatever lies beside its files.
"""
