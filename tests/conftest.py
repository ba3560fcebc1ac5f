"""What the tests share: golden arrays, double precision, short property tests."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import settings
from torch import Tensor

torch.set_num_threads(1)  # workers share the cores,
os.environ["OMP_NUM_THREADS"] = "1"  # and with the commands that they start

GOLDEN = Path(__file__).parent / "golden"

settings.register_profile("setexp", deadline=None, max_examples=15, derandomize=True, database=None)
settings.load_profile("setexp")


@pytest.fixture(scope="session")
def golden() -> Callable[[str], dict[str, Tensor]]:
    """Reader of the arrays in tests/golden: numbers of the authors' own modules, in float64."""

    def read(name: str) -> dict[str, Tensor]:
        with np.load(GOLDEN / f"{name}.npz", allow_pickle=False) as arrays:
            return {key: torch.from_numpy(arrays[key]) for key in arrays.files}

    return read


@pytest.fixture(scope="module")
def float64() -> Iterator[None]:
    """Double precision as the default type: of parameters, random numbers and constants."""
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(before)


@pytest.fixture(scope="session")
def data_root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data folder without real data, shared by all tests of a session and its workers."""
    base = tmp_path_factory.getbasetemp()
    return (base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / "data"


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(0)


@pytest.fixture(autouse=True)
def _threads() -> Iterator[None]:
    """`threads=...` of a run holds for its process, which is that of the next test, too."""
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


@pytest.fixture
def tf32() -> Iterator[tuple[Any, Any]]:
    """What allows TF32 in convolutions and in products; put back afterwards."""
    flags = torch.backends.cudnn, torch.backends.cuda.matmul
    before = [flag.allow_tf32 for flag in flags]
    yield flags
    for flag, allowed in zip(flags, before, strict=True):
        flag.allow_tf32 = allowed
