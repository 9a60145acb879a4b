"""A Vault- and OpenBao-compatible server for tests, in a process of its own and with real cryptography.

What it answers was measured on OpenBao 2.6.2, and tests/contract/vault asserts it here and on a real server. It keeps
everything in memory. What no healthy server can be made to show (a hang, a rotate that happened and still answered 500)
comes through a control socket that only tests have, never through the API. Start it with `vault_doubles.vault_double`.

Not here, and refused rather than imitated: signing keys, convergent encryption, leases, audit devices, plugins.
"""
