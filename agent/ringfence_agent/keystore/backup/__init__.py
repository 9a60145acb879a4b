"""Backups of a key store: making, checking, restoring and rehearsing them."""
