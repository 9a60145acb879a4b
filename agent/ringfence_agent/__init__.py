"""The residents: everything that listens or loops."""
