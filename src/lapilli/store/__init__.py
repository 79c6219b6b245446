"""Which model is meant, and where it lies."""
