"""Notifications: tell a person something, by the first channel that takes it."""
