"""From a stock KMS to ours on the same address, and back."""
