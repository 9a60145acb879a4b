"""A real one-node HDFS on this machine, for trying and testing."""
