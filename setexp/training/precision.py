"""In which arithmetic a GPU computes what is stored as float32."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext

import torch

from setexp.errors import ConfigError
from setexp.training.settings import Precision


def set_float32(precision: Precision) -> None:
    """Let matrix products and convolutions of float32 round to TF32 or not, in this process.

    PyTorch leaves convolutions and recurrent layers at TF32 unless it is told.
    """
    allowed = precision is Precision.tf32
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = allowed


def check_precision(precision: Precision, device: torch.device) -> None:
    """Whether a device can train in it.

    Raises:
        ConfigError: bf16 on a GPU that would only imitate it.
    """
    native = device.type != "cuda" or torch.cuda.is_bf16_supported(including_emulation=False)
    if precision is Precision.bf16 and not native:
        raise ConfigError(
            f"trainer.precision=bf16: {torch.cuda.get_device_name(device)} has no bf16; use float32"
        )


def forward_in(precision: Precision, device: torch.device) -> AbstractContextManager[object]:
    """Where the forward pass of a training step happens."""
    if precision is Precision.bf16:
        return torch.autocast(device.type, torch.bfloat16)
    return nullcontext()
