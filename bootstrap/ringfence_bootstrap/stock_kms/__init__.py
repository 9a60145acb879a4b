"""Hadoop's own KMS made fit for use: TLS, closed access lists, a strong key store password, backups off the node."""
