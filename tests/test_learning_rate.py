"""Learning rates that no float can hold."""

import math
from typing import Any

import pytest
import torch

from setexp.training.optimise import learning_rate, make_optimizer
from setexp.training.settings import Optimizer, Trainer


@pytest.mark.parametrize("optimizer", Optimizer)
@pytest.mark.parametrize(
    "settings",
    [
        {"lr_factor": 1e200, "lr_epochs": [1, 1]},
        {"lr_decay": 1e300},
        {"lr_decay": 1e10, "lr_decay_steps": 1},  # held by a float64, by no float32
    ],
)
def test_a_rate_beyond_float32_is_infinite_and_spoils_the_weights(
    optimizer: Optimizer, settings: dict[str, Any]
) -> None:
    trainer = Trainer(optimizer=optimizer, **settings)
    rate = learning_rate(trainer, 1, 4)
    assert rate == math.inf
    parameter = torch.nn.Parameter(torch.ones(3))
    stepping = make_optimizer({"p": parameter}, trainer, 1)
    stepping.param_groups[0]["lr"] = rate
    parameter.square().sum().backward()
    stepping.step()
    assert not parameter.isfinite().any()


def test_a_large_rate_is_limited_by_the_largest() -> None:
    assert learning_rate(Trainer(lr_factor=1e200, lr_epochs=[1, 1], lr_max=2.0), 1, 4) == 2.0
