"""How a technique is run: memory, chunks, devices, precision, and what the record of a run says."""
