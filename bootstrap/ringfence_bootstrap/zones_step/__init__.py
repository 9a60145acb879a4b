"""The step of an EMR cluster that makes its zones: waits for HDFS and its key provider, then applies the policy."""
