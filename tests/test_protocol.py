"""The published settings, written down a second time, and splits that share nothing."""

from __future__ import annotations

from itertools import combinations
from pathlib import Path

import pytest
import torch
from smoke_runs import config
from torch.utils._pytree import tree_leaves

from setexp.build import build
from setexp.errors import ConfigError

TRAINERS = {
    "polygons_fspool": "epochs=10 batch_size=16 lr=1e-3",
    "counting_toy": "batch_size=1024 lr=1e-2",
    "vqa_baseline": "epochs=100 batch_size=256 lr=1.5e-3 lr_decay=0.5 lr_decay_steps=50000",
    "ban": "epochs=13 batch_size=112 lr=2e-3 lr_factor=0.25 clip=0.25 select=best",
    "sorting": "batch_size=512 lr=0.1",
    "mosaics_po_u": "epochs=20 batch_size=32 lr=1e-3 drop_last=False",
    "mosaic_classifier": "epochs=20 batch_size=32 lr=1e-3 drop_last=False",
    "mnist_sum": "epochs=10 batch_size=8 lr=1e-3",
    "mnist_classify_sum": "epochs=100 batch_size=8 lr=1e-3",
    "clevr_questions_sum": "epochs=350 batch_size=640 weight_decay=1e-4 clip=50",
    "graphs_bio": "epochs=500 batch_size=32 lr=1e-2 lr_factor=0.5",
    "dspn_mnist": "epochs=100 batch_size=32 lr=1e-2",
    "dspn_clevr_boxes": "epochs=100 batch_size=32 lr=3e-4",
    "dspn_clevr_state": "epochs=100 batch_size=32 lr=3e-4",
    "numbering_idspn": "batch_size=128 lr=1e-3 select=best",
    "multisets_idspn": "epochs=40 batch_size=128 lr=1e-3",
    "clevr_idspn": "epochs=100 batch_size=128 lr=1e-3 lr_epochs=[90] lr_factor=0.1 "
    "inner_steps=[20,40] inner_epochs=[50] drop_last=False",
    "clevr_slot_attention": "steps=200000 batch_size=512 lr=4e-4 lr_warmup=1000 lr_decay=0.5 "
    "lr_decay_steps=50000",
    "sslr_circles_srn": "epochs=1001 batch_size=64 lr=3e-4 inner_steps=[10,20]",
}


@pytest.mark.parametrize("experiment", TRAINERS)
def test_trainers_are_as_published(experiment: str) -> None:
    plain, wanted = (
        config(f"experiment={experiment}", *(f"trainer.{o}" for o in overrides.split()))["trainer"]
        for overrides in ("", TRAINERS[experiment])
    )
    assert plain == wanted


@pytest.mark.parametrize(
    ("experiment", "key", "value"),
    [
        ("dspn_mnist", "decoder.steps", 10),
        ("dspn_mnist", "decoder.descent.step_size", 800.0),
        ("dspn_clevr_state", "decoder.steps", 10),
        ("dspn_clevr_state", "evaluation.drop_last", True),
        ("clevr_idspn", "decoder.descent.clip", 10.0),
        ("clevr_idspn", "decoder.descent.momentum", 0.9),
        ("sslr_circles_srn", "decoder.descent.momentum", 0.5),
        ("mosaics_po_u", "encoder.steps", 4),
        ("sorting", "encoder.steps", 6),
        ("dspn_clevr_boxes", "evaluation.metrics.plus_one.plus_one", True),
        ("dspn_clevr_boxes", "evaluation.metrics.fixed.plus_one", False),
        ("mnist_sum", "dataset.threshold", 0.1307),
    ],
)
def test_parts_are_as_published(experiment: str, key: str, value: object) -> None:
    node = config(f"experiment={experiment}")
    for name in key.split("."):
        node = node[name]
    assert node == value


@pytest.mark.parametrize(
    "experiment",
    [
        "numbering_idspn",
        "multisets_idspn",
        "sslr_circles_srn",
        "sslr_matching_srn",
        "mosaics_po_u",
        "mosaics_po_u dataset=mosaics_cifar10",
        "mnist_sum",
        "dspn_mnist",
        "clevr_questions_sum",
        "vqa_baseline",
    ],
)
def test_splits_hold_other_data(experiment: str, tmp_path: Path) -> None:
    given = [f"experiment={experiment.split()[0]}", *experiment.split()[1:], "scale=smoke"]
    sizes = ["dataset.train_size=4", "dataset.test_size=4"] if "mosaics" in experiment else []
    nodes = config(*given, *sizes, f"paths.data={tmp_path}")
    data, found = build(nodes["dataset"], "dataset"), {}
    for split in ("train", "val", "test"):
        try:
            count = min(data.sizes(split), 4)
        except ConfigError:
            continue  # it has no such split
        generator = torch.Generator().manual_seed(0)
        batch = next(data.batches(split, count, generator, shuffle=False, drop_last=False))
        found[split] = torch.cat([t.flatten().double() for t in tree_leaves(batch)])
    assert len(found) >= 2
    for a, b in combinations(found.values(), 2):
        assert not torch.equal(a, b)
