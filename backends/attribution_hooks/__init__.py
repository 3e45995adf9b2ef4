"""The four techniques by hand-written PyTorch hooks."""
