"""The agent's HTTP API for step jobs."""
