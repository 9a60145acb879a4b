"""What a policy would have refused of what was done: past accesses read from logs, and judged."""
