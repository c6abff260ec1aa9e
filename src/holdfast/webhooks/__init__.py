"""Incoming requests: what arrived, and whether to believe who sent it."""
