"""The `ringfence` command: one file per command, one table of exit codes."""
