"""Flow rules: which zones' data one session may bring together. See `automaton` for the rules and their limits."""
