"""A key store in the KV version 2 engine of Vault or OpenBao (packaging/decisions/0026-vault-kv-key-store.md)."""
