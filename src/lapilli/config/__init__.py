"""What a model is, in numbers: frozen, nested, derived once, and free of torch.

`from_dict` reads a Hugging Face `config.json`, `to_dict` writes one that transformers opens.
"""

from lapilli.config.fields import Activation as Activation
from lapilli.config.llava import LlavaConfig as LlavaConfig
from lapilli.config.rope import RopeConfig as RopeConfig
from lapilli.config.text import TextConfig as TextConfig
from lapilli.config.tiles import select_canvas as select_canvas
from lapilli.config.tiles import unpadded_grid as unpadded_grid
from lapilli.config.vision import VisionConfig as VisionConfig
