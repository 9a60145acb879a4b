"""What this machine and its dependencies look like to a KMS that runs, or is to run, on it. Read-only."""
