"""Weights on disk: names tables, safetensors, GGUF, quantized types, load and save."""
