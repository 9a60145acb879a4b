"""EMR classifications that encrypt HDFS, and what crosses the network where no security configuration does."""
