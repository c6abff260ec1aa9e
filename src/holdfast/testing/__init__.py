"""The test kit: simulated vendors, faults, and a ledger of what really happened."""
