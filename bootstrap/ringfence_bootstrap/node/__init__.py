"""Ringfence on a node of an EMR cluster: what it is, how it is set up after provisioning, and how it is left."""
