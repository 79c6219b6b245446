"""Where tensors live: the device that a person named."""

from __future__ import annotations

import torch

from lapilli.errors import InputError


def choose_device(name: str) -> torch.device:
    """The device of that name; "auto" is a CUDA GPU where there is one, else the CPU.

    Raises InputError for a device that torch does not know, or that is not here.
    """
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError:
        raise InputError(f"device {name!r} is not known: use auto, cpu or cuda") from None
    if device.type not in ("cpu", "cuda"):
        raise InputError(f"device {name!r} is not one that lapilli runs on: use auto, cpu or cuda")
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise InputError(
            f"device {name!r} is not here, there are {torch.cuda.device_count()} CUDA devices: use auto or cpu"
        )
    return device
