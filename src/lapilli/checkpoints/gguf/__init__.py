"""GGUF files: metadata and tensors, read with nothing taken on trust and written whole or not at all.

    with read_gguf("llava.gguf") as file:
        layers = file.integer("llama.block_count", minimum=1)
        weight = file.tensors["output.weight"].dequantize()

Follows https://github.com/ggml-org/ggml/blob/master/docs/gguf.md (versions 2 and 3, little-endian).
"""

from lapilli.checkpoints.gguf.file import GGUFFile, GGUFTensor
from lapilli.checkpoints.gguf.reader import read_gguf
from lapilli.checkpoints.gguf.writer import TensorSource, write_gguf

__all__ = ["GGUFFile", "GGUFTensor", "TensorSource", "read_gguf", "write_gguf"]
