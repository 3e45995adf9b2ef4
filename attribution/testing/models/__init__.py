"""Small models: plain ones, awkward ones, and ones that deceive a copy, a trace or a batch."""
