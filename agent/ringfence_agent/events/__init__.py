"""What happens in HDFS between two looks: the event stream, what it says of zones, and what became of it."""
