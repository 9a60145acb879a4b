"""Hadoop's Java key store files, read and written."""
