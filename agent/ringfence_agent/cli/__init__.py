"""Sub-commands that the residents add to ringfence."""
