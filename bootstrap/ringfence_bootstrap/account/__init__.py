"""An AWS account as the EMR commands see it: configurations, clusters, keys, roles and certificates."""
