"""What a block of code leaves changed: of a model, of torch, of the process."""
