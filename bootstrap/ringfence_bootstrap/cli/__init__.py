"""Sub-commands that the bootstrap adds to ringfence."""
