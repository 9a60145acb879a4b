"""The audit log of the key server: what is recorded, how it is written, how it is read again."""
