"""What other libraries say, right or wrong: references beside the backends."""
