"""Equivariance is measured, and is what iDSPN's Table 2 says of its seven models."""

from __future__ import annotations

from types import ModuleType
from typing import Any

import pytest
import torch
from smoke_runs import config, load_script
from torch import Tensor

from setexp.metrics.equivariance import deviations


@pytest.fixture(scope="module")
def script() -> ModuleType:
    return load_script("equivariance")


def occurrences(x: Tensor) -> Tensor:
    """How many equal elements came before each."""
    equal = (x.unsqueeze(-2) == x.unsqueeze(-3)).all(-1)
    return equal.double().tril(-1).sum(-1, keepdim=True)


def test_deviations_of_known_maps() -> None:
    x = torch.tensor([[[1.0], [2.0], [1.0], [1.0]]], dtype=torch.float64)
    swap = torch.tensor([[3, 1, 2, 0]])  # of equal elements alone
    turn = torch.tensor([[1, 2, 3, 0]])
    for order in (swap, turn):
        assert deviations(lambda x: 3 * x, x, order) == (0, 0)
    assert deviations(occurrences, x, swap) == (2, 0)
    place = torch.arange(4.0, dtype=torch.float64).reshape(1, 4, 1)
    # the output of the lone 2 was 1 and becomes 0
    assert deviations(lambda x: place + 0 * x, x, turn).multiset == 1


def test_measured_columns_are_those_in_print(script: ModuleType) -> None:
    lines = script.columns()
    assert len(lines) == 7
    for _, *cells in lines:
        for printed, measured in (cells[:2], cells[2:]):
            assert measured.split()[0] == printed


@pytest.mark.parametrize(
    "pooling",
    [
        {"_target_": "setexp.encoders.pooling.MeanPool", "by_set_size": False},
        {"_target_": "setexp.encoders.pooling.SumPool"},
    ],
    ids=["mean", "sum"],
)
def test_without_sorting_idspn_cannot_separate_equal_elements(
    script: ModuleType, pooling: dict[str, Any]
) -> None:
    """iDSPN, 2.3: what is exclusively multiset-equivariant is the gradient of sorting."""
    nodes = config("experiment=numbering_idspn", "scale=smoke")
    sorting = script.measure(nodes)
    nodes["task"]["decoder"]["set_encoder"]["pooling"] = pooling | {"masked": False}
    other = script.measure(nodes)
    assert sorting.multiset < script.ROUNDING < 1e-3 < sorting.set
    assert max(other) < script.ROUNDING


def test_help_measures_nothing(
    script: ModuleType, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(script, "columns", lambda: pytest.fail("measured"))
    with pytest.raises(SystemExit) as end:
        script.main(["--help"])
    assert end.value.code == 0 and "iDSPN's Table 2, measured" in capsys.readouterr().out
