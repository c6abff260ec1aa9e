"""Kills, freezes, fills and repeats, and an oracle outside of it that says whether anything was lost or done twice."""
