"""Tensors in, tensors out: the model knows no files, no text and no requests.

Shapes are in names: B rows, T new tokens, S tokens seen so far, D width, H heads, K key-value heads,
N image features, C channels, L layers.
"""
