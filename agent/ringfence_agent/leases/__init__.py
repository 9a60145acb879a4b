"""Leases: who of several agents may act now."""
