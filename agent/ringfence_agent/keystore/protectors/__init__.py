"""The roots of trust that a key store can be protected by, one file each."""
