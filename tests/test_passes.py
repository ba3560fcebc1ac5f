"""What every dataset promises of its passes: `setexp.datasets` says it, resuming relies on it."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import torch
from smoke_runs import config
from torch import Tensor

from setexp.build import build
from setexp.config import CONFIGS
from setexp.sets import Batch
from setexp.training.randomness import for_run

SIZE = 3  # of batches: two or more are full, and a smaller one is left
EXPERIMENTS = {
    "CircleImages": "sslr_circles_srn",
    "CirclePairs": "sslr_matching_srn",
    "ClevrQuestions": "clevr_questions_max",
    "ClevrSets": "dspn_clevr_state dataset.train_size=8",
    "CountingToy": "counting_toy",
    "Mosaics": "mosaics_po_u dataset.train_size=8",
    "Multisets": "multisets_idspn",
    "Numbering": "numbering_idspn dataset.augment=true",
    "Numbers": "sorting",
    "Polygons": "polygons_fspool",
    "SetMnist": "mnist_fspool dataset.train_size=8 dataset.noise=0.1",
    "TUDataset": "graphs_bio",
    "VQA": "vqa_counting",
}


@pytest.fixture(scope="module", params=EXPERIMENTS)
def dataset(request: pytest.FixtureRequest, data_root: Path) -> Any:
    overrides = f"experiment={EXPERIMENTS[request.param]}".split()
    node = config(*overrides, "scale=smoke", f"paths.data={data_root}")["dataset"]
    found = for_run(build(node, "dataset"), 0)
    assert type(found).__name__ == request.param
    return found


def one_pass(dataset: Any, seed: int = 0, **changes: Any) -> list[list[Tensor]]:
    """All tensors of each batch, one list per batch."""
    how = {"shuffle": True, "drop_last": False} | changes
    generator = torch.Generator().manual_seed(seed)
    return [tensors(batch) for batch in dataset.batches("train", SIZE, generator, **how)]


def tensors(node: Batch | Any) -> list[Tensor]:
    if isinstance(node, Tensor):
        return [node]
    parts = node.values() if isinstance(node, dict) else node
    return [tensor for part in parts for tensor in tensors(part)]


def same(some: list[list[Tensor]], others: list[list[Tensor]]) -> bool:
    """Whether two lists of batches are equal to the last bit."""
    return len(some) == len(others) and all(
        torch.equal(a, b)
        for batch, other in zip(some, others, strict=True)
        for a, b in zip(batch, other, strict=True)
    )


def test_no_dataset_is_forgotten() -> None:
    configs = [path.read_text() for path in (CONFIGS / "dataset").glob("*.yaml")]
    named = [re.search(r"^_target_: .*\.(\w+)$", text, flags=re.M) for text in configs]
    assert {found[1] for found in named if found} == EXPERIMENTS.keys()


def test_a_pass_is_a_function_of_its_generator(dataset: Any) -> None:
    assert same(one_pass(dataset), one_pass(dataset))


def test_what_another_seed_changes_changes_from_batch_to_batch(dataset: Any) -> None:
    first, *later = one_pass(dataset, drop_last=True)
    (other, *_) = one_pass(dataset, seed=1)
    drawn = [at for at in range(len(first)) if not torch.equal(first[at], other[at])]
    assert drawn
    for at in drawn:
        assert any(not torch.equal(first[at], batch[at]) for batch in later)


@pytest.mark.parametrize("shuffle", [True, False])
@pytest.mark.parametrize("drop_last", [True, False])
def test_a_pass_can_start_anywhere(dataset: Any, shuffle: bool, drop_last: bool) -> None:
    how = {"shuffle": shuffle, "drop_last": drop_last}
    whole = one_pass(dataset, **how)
    for start in range(len(whole) + 2):
        assert same(one_pass(dataset, start=start, **how), whole[start:])


def test_only_a_last_batch_that_is_smaller_can_be_dropped(dataset: Any) -> None:
    full, rest = divmod(dataset.sizes("train"), SIZE)
    whole = one_pass(dataset)
    assert full >= 2 and rest and len(whole) == full + 1
    assert same(one_pass(dataset, drop_last=True), whole[:full])
