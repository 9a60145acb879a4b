"""Who may do what: Hadoop's ACLs, groups, and the published policy."""
