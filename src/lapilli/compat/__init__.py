"""Old import names over our parts, and nothing else: `embedchain` for documents, `trials` for the extraction."""
