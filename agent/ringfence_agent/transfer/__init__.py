"""Sanctioned transfers between zones: copied by their own process, verified by reading back, receipted."""
