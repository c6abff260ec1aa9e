"""Real servers on the loopback: LNbits and SMTP."""
