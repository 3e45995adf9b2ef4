"""A copy of a network for forwards only: batch norms folded, convolutions packed. See README.md in this room."""
