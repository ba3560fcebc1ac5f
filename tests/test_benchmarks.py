"""Every case of the benchmark fits the configs that it is built from; no test asserts a time."""

import pytest
import torch
from cases import CASES

from setexp.config import register

register()


@pytest.mark.parametrize("name", CASES)
def test_a_case_can_be_built(name: str) -> None:
    case = CASES[name](torch.device("cpu"), False)
    assert case.bars.keys() <= {contender.name for contender in case.contenders}
    assert all(contender.steps > 0 for contender in case.contenders)
    assert all(isinstance(least, float) for least in case.smaller.values())
