"""The hands: run once, change a machine or a cluster, can undo."""
