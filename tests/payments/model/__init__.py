"""Vendors of every kind, processes that interleave and die, and an oracle that reads the vendors' own books."""
