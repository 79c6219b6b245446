"""Old import names over our parts, and nothing else: `embedchain` for documents, `trials` and `ollama` for trials."""
