"""What the key server tells of itself: metrics, health, Hadoop's JMX page."""
