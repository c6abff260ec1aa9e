"""Meetings: one link per booking, whatever provider makes it."""
