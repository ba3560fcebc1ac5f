"""Random multisets: what is drawn, how passes repeat, and the models of Tables 5 and 6 of iDSPN."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from smoke_runs import config, failure, only, read, train
from torch import Tensor

from setexp.build import build
from setexp.datasets.multisets import Multisets
from setexp.errors import ConfigError
from setexp.files import write_json
from setexp.report.blocks import blocks
from setexp.report.compare import ours, seeds
from setexp.report.papers import Column
from setexp.report.records import read_records
from setexp.report.tables import load_table
from setexp.sets import Batch

SIZES = {"train": 20, "val": 12, "test": 5}


def make(seed: int = 0, **changes: int) -> Multisets:
    arguments = {"set_size": 3, "element_dim": 2}
    sizes = {f"{split}_size": size for split, size in SIZES.items()}
    return Multisets(**{**arguments, **sizes, **changes}).for_run(1000 * seed)


def one_pass(dataset: Multisets, split: str = "train", seed: int = 0, **how: Any) -> list[Batch]:
    generator = torch.Generator().manual_seed(seed)
    how = {"shuffle": True, "drop_last": False} | how
    return list(dataset.batches(split, 8, generator, **how))


def elements(batches: list[Batch]) -> Tensor:
    return torch.cat([batch.target.x for batch in batches])


def by_value(x: Tensor) -> Tensor:
    """Sets in an order of their own; their first numbers are all different."""
    return x[x[:, 0, 0].argsort()]


def test_elements_are_standard_normal_and_independent() -> None:
    count = 20_000
    x = elements(one_pass(make(train_size=count))).flatten(1)
    assert (x.mean(0).abs() < 5 / count**0.5).all()
    off = torch.cov(x.T) - torch.eye(x.shape[1])
    assert (off.abs() < 8 / count**0.5).all()
    assert ((x.abs() < 1).double().mean(0) - 0.6827).abs().max() < 5 * 0.4654 / count**0.5


def test_batches() -> None:
    dataset = make()
    batches = one_pass(dataset)
    assert [batch.target.x.shape for batch in batches] == [(8, 3, 2), (8, 3, 2), (4, 3, 2)]
    assert all(batch.input is batch.target for batch in batches)
    assert all(batch.target.mask.shape == batch.target.x.shape[:2] for batch in batches)
    assert all((batch.target.mask == 1).all() for batch in batches)
    assert {split: dataset.sizes(split) for split in SIZES} == SIZES
    for split, size in SIZES.items():
        assert len(elements(one_pass(dataset, split))) == size
        assert len(one_pass(dataset, split, drop_last=True)) == size // 8


def test_sets_stay_and_their_order_is_the_generators() -> None:
    dataset = make()
    first, second = elements(one_pass(dataset)), elements(one_pass(dataset, seed=1))
    assert not torch.equal(first, second)
    assert torch.equal(by_value(first), by_value(second))
    assert torch.equal(first, elements(one_pass(make())))
    still = elements(one_pass(dataset, shuffle=False))
    assert torch.equal(still, elements(one_pass(dataset, seed=1, shuffle=False)))


def test_the_device_does_not_decide() -> None:
    """Meta tensors can be moved to, but nothing can be drawn on their device."""
    (batch, *_) = one_pass(make().to(torch.device("meta")))
    assert batch.input.x.device.type == "meta"


def test_splits_are_functions_of_the_runs_seed_alone() -> None:
    dataset, other = make(), make(seed=1)
    everything = torch.cat([elements(one_pass(d, s)) for d in (dataset, other) for s in SIZES])
    assert len(everything.flatten(1).unique(dim=0)) == 2 * sum(SIZES.values())
    for split in SIZES:
        longer = make(**{f"{s}_size": 40 for s in SIZES if s != split})
        here, there = (elements(one_pass(d, split, shuffle=False)) for d in (dataset, longer))
        assert torch.equal(here, there)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"set_size": 0}, "dataset.set_size=0: at least 1"),
        ({"element_dim": 0}, "dataset.element_dim=0: at least 1"),
    ],
)
def test_what_is_refused(changes: dict[str, int], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        make(**changes)


def test_an_unknown_split_is_refused() -> None:
    with pytest.raises(ConfigError, match="split all: choose train, val, test"):
        make().sizes("all")


def task(experiment: str, *overrides: str) -> torch.nn.Module:
    torch.manual_seed(0)
    return build(config(f"experiment={experiment}", "scale=smoke", *overrides)["task"], "task")


def outcome(experiment: str, *overrides: str) -> Tensor:
    """Predictions of a fresh model."""
    return task(experiment, *overrides)(one_pass(make(), "test")[0]).prediction.x[-1]


def test_training_is_as_printed() -> None:
    nodes = config("experiment=multisets_idspn")
    trainer = nodes["trainer"]
    assert nodes["dataset"]["train_size"] * trainer["epochs"] // trainer["batch_size"] == 20_000
    assert nodes["evaluation"]["final"] == {"val": ""}


def test_all_models_of_table_5_start_alike() -> None:
    idspn, plain, dspn = (
        task(name) for name in ("multisets_idspn", "multisets_idspn_plain", "multisets_dspn")
    )
    for other in (plain, dspn):
        assert idspn.state_dict().keys() == other.state_dict().keys()
        for name, value in idspn.state_dict().items():
            assert torch.equal(value, other.state_dict()[name])
    assert torch.equal(outcome("multisets_idspn_plain"), outcome("multisets_dspn"))
    assert not torch.allclose(outcome("multisets_idspn"), outcome("multisets_dspn"))


def test_the_inverted_encoder_has_weights_of_its_own() -> None:
    model = task("multisets_idspn")
    first, second = dict(model.encoder.named_parameters()), dict(
        model.decoder.set_encoder.named_parameters()
    )  # fmt: skip
    assert {k: p.shape for k, p in first.items()} == {k: p.shape for k, p in second.items()}
    assert all(not torch.equal(p, second[k]) for k, p in first.items())
    assert first["pooling.weights.weight"].shape == (16, 3)
    assert first["elements.mlp.0.bias"].any()  # PyTorch's initial weights, not Xavier's


@pytest.mark.parametrize("pooling", ["sum", "mean"])
def test_other_poolings_are_the_inverted_encoders_alone(pooling: str) -> None:
    model = task(f"multisets_idspn_{pooling}")
    assert type(model.encoder.pooling).__name__ == "FSPool"
    assert type(model.decoder.set_encoder.pooling).__name__ == f"{pooling.title()}Pool"


def test_momentum_of_the_baseline_can_be_set() -> None:
    changed = outcome(
        "multisets_dspn", "decoder.descent.momentum=0.9", "decoder.descent.nesterov=true"
    )
    assert torch.equal(changed, outcome("multisets_idspn"))


def test_seeds_that_diverge_are_recorded_and_counted(tmp_path: Path) -> None:
    overrides = ["experiment=multisets_idspn_sum", "dataset.element_dim=2", "dataset.set_size=2"]
    overrides += ["decoder.steps=10"]
    train(tmp_path, *overrides, "seeds=[0]")
    table = load_table("idspn/6")
    cell = table.cells["iDSPN+mom+Sum n=2 it=10", "d=2"]

    def shown() -> tuple[str, str]:
        (block,) = blocks(table, read_records(tmp_path / "none", tmp_path), [table])
        measured = block.measured(cell)
        return ours(measured, Column("loss", "lower", 1.0), None), seeds(measured)

    value = read(only(tmp_path) / "seed-0/result.json")["metrics"]["hungarian"]
    assert shown() == (f"{value:.3g}", "1 of 8")
    # a run under these axes whose inner steps explode, in the place of two further seeds
    said = failure(tmp_path / "wild", *overrides, "decoder.descent.step_size=1e30", "seeds=[1,2]")
    assert len(said.splitlines()) == 2 and "cost matrix" in said and "not finite" in said
    for seed in (1, 2):
        record = read(only(tmp_path / "wild") / f"seed-{seed}/result.json")
        assert (record["status"], record["metrics"]) == ("diverged", None)
        assert record["axes"].pop("decoder.descent.step_size") == 1e30
        write_json(only(tmp_path) / f"seed-{seed}/result.json", record)
    assert shown() == (f"{value:.3g}", "1 of 8, 2 diverged")
