"""Questions that are answered from documents, each answer with the places it came from."""
