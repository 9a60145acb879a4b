"""Everything that talks to Vault or OpenBao: the data path, the control plane, logging in, setting up."""
