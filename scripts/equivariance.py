"""The columns "set-equivariant" and "multiset-equivariant" of iDSPN's Table 2, measured.

    python scripts/equivariance.py

prints, for each model with its initial weights, how far it is from being equivariant on sets with
many equal elements. A map is equivariant where the distance is a rounding error.

What is drawn at random is held: a Transformer's random features stay with their position, as
position encodings do; the initial set of DSPN and iDSPN is part of the multiset that they map
(2.3), so its rows move with their elements, and equal elements start alike.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
import yaml
from torch import Tensor, nn

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from setexp.build import build
from setexp.config import compose_run, plain, register
from setexp.metrics.equivariance import Deviations, deviations
from setexp.report.papers import PAPERS
from setexp.report.render import Grid
from setexp.report.tables import load_table
from setexp.sets import Encoding, SetBatch

TABLE = "idspn/2"
ROUNDING = 1e-6
SETS, SIZE = 16, 8


class StartOfClass(nn.Module):
    """An initial set whose row depends on the element's class: (B, N, K) to (B, N, F)."""

    def __init__(self, classes: int, features: int) -> None:
        super().__init__()
        self.register_buffer("rows", 0.1 * torch.randn(classes, features))

    def forward(self, encoding: Encoding) -> Tensor:
        assert encoding.elements is not None
        return encoding.elements.x @ self.get_buffer("rows")


def measure(nodes: dict[str, Any]) -> Deviations:
    """Deviations of the model of an experiment's config, in double precision."""
    data = nodes["dataset"]
    torch.manual_seed(0)
    task = build(nodes["task"], "task").double().eval()
    if hasattr(task.decoder, "initial"):
        task.decoder.initial = StartOfClass(data["classes"], data["element_dim"]).double()
    generator = torch.Generator().manual_seed(0)
    passes = build(data, "dataset").batches("val", SETS, generator, shuffle=False, drop_last=False)
    x = next(iter(passes)).input.x.double()
    order = torch.rand(x.shape[:-1], generator=generator).argsort(-1)

    @torch.no_grad()
    def model(x: Tensor) -> Tensor:
        torch.manual_seed(0)
        return task.decoder(task.encoder(SetBatch(x, x.new_ones(x.shape[:-1])))).x[-1]

    return deviations(model, x, order)


def columns() -> list[list[str]]:
    """Rows of the table: model, and for both columns what is printed and what is measured."""
    register()
    printed = yaml.safe_load((PAPERS / "idspn.yaml").read_text())["tables"][TABLE]["row_meta"]
    experiments = {row: cell.experiment for (row, _), cell in load_table(TABLE).cells.items()}
    lines = []
    for model, meta in printed.items():
        overrides = [f"experiment={experiments[model]}", f"dataset.set_size={SIZE}"]
        measured = measure(plain(compose_run(overrides)))._asdict()
        cells = [model]
        for kind, deviation in measured.items():
            ours = deviation < ROUNDING
            cells += ["yes" if meta[f"{kind}_equivariant"] else "no"]
            cells += [f"{'yes' if ours else 'no'} ({deviation:.1e})"]
        lines.append(cells)
    return lines


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure, and print the table."""
    argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    ).parse_args(arguments)
    headers = ["model", "set-equivariant", "measured", "multiset-equivariant", "measured"]
    print(Grid(headers, columns(), 1).text())


if __name__ == "__main__":
    main()
