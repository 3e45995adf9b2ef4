"""The techniques by hand-written PyTorch hooks."""
