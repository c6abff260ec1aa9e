"""Payments: one due amount, ordered attempts to collect it, never two live offers."""
