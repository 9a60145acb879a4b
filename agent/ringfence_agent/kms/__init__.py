"""The Hadoop-KMS-compatible server, one file per resource."""
