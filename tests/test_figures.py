"""Figures on tiny data: the files they write, what they measure, what they leave alone."""

from __future__ import annotations

import json
import logging
import math
import re
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from setexp import experiment
from setexp.build import check
from setexp.config import CONFIGS, compose_run, plain, register
from setexp.datasets.clevr.objects import state_vectors
from setexp.datasets.mosaics import Mosaics
from setexp.datasets.polygons import Polygons, polygons
from setexp.errors import ConfigError
from setexp.figures import canvas
from setexp.figures.boxes_progression import BoxesProgression, draw_boxes
from setexp.figures.examples import match, predict, stages
from setexp.figures.mnist_progression import MnistProgression, draw_points
from setexp.figures.mosaic_progression import MosaicProgression
from setexp.figures.multisets import MultisetExamples, draw_pairs, plane
from setexp.figures.needs import DATA, PARTS
from setexp.figures.numbering_failures import NumberingFailures
from setexp.figures.objects import read_scene, score
from setexp.figures.polygons import RotatingPolygon, moves, spans
from setexp.figures.pool_weights import ends_read
from setexp.figures.scene_plan import place
from setexp.figures.state_progression import StateProgression
from setexp.figures.state_table import state_table
from setexp.figures.tile_sensitivity import TileSensitivity
from setexp.ops.costs import Cost
from setexp.sets import Batch, SetBatch
from setexp.tasks.outcome import Outcome

SETS, SIZE = 3, 4


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


class Tiny:
    """Three random sets, with images where the figure needs them."""

    set_size = SIZE

    def __init__(self, dim: int, *, images: bool, empty: bool = False) -> None:
        x = torch.rand(SETS, SIZE, dim, generator=generator())
        mask = torch.ones(SETS, SIZE)
        mask[0, 2:] = 0
        if empty:
            mask.zero_()
        self.sets = SetBatch(x * mask.unsqueeze(-1), mask)
        self.images = torch.rand(SETS, 3, 8, 8, generator=generator(1)) if images else None

    def batches(
        self,
        split: str,
        batch_size: int,
        generator: torch.Generator,
        *,
        start: int = 0,
        shuffle: bool,
        drop_last: bool,
    ) -> Iterator[Batch]:
        assert (split, start, shuffle, drop_last) == ("test", 0, False, False)
        sets = SetBatch(*(tensor[:batch_size] for tensor in self.sets))
        yield Batch(sets if self.images is None else self.images[:batch_size], sets, {})


class Spread(Tiny):
    """Three sets whose elements are far apart, so that a small shift keeps their matching."""

    def __init__(self) -> None:
        super().__init__(2, images=False)
        x = 10.0 * torch.arange(SIZE).reshape(1, SIZE, 1).expand(SETS, SIZE, 2)
        self.sets = SetBatch(x, torch.ones(SETS, SIZE))


class Approach(nn.Module):
    """From noise of the global random state to the target, at once or in steps."""

    def __init__(self, *, one_shot: bool = False, bad: float | None = None, mask: bool = True):
        super().__init__()
        self.one_shot, self.bad, self.mask = one_shot, bad, mask

    def forward(self, batch: Batch, steps: int | None = None) -> Outcome:
        x, mask = batch.target
        noise = torch.rand(x.shape)
        shares = torch.linspace(0, 1, 11 if steps is None else steps + 1)
        every = torch.stack([noise + share * (x - noise) for share in shares])
        masks = (
            torch.stack([(0.4 + 0.6 * share) * mask for share in shares])
            if self.mask
            else every[..., 0] * 0
        )
        if self.bad is not None:
            every[-1, :, 0] = self.bad
            masks[-1, :, 1] = self.bad
        if self.one_shot:
            every, masks = every[-1:], masks[-1:]
        return Outcome(x.new_zeros(len(x)), SetBatch(every, masks), {})


class Rows(nn.Module):
    """An auto-encoder of polygons made of a function from (K, N, 2) to the same."""

    def __init__(self, function: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.function = function

    def forward(self, batch: Batch, steps: int | None = None) -> Outcome:
        x = self.function(batch.input.x).unsqueeze(0)
        return Outcome(x.new_zeros(x.shape[1]), SetBatch(x, x.new_ones(x.shape[:-1])), {})


Case = tuple[Any, Callable[..., Any], set[str]]
PROGRESSIONS: dict[str, Case] = {
    "mnist": (
        MnistProgression(sets=2, batch_size=3, steps=[0, 1, 3]),
        lambda **kw: Tiny(2, images=False, **kw),
        {"mnist_progression.png"},
    ),
    "boxes": (
        BoxesProgression(sets=2, batch_size=3, steps=[0, 2]),
        lambda **kw: Tiny(4, images=True, **kw),
        {"boxes_progression.png"},
    ),
    "state": (
        StateProgression(sets=2, batch_size=3, steps=[0, 2]),
        lambda **kw: Tiny(18, images=True, **kw),
        {"state_progression.png", "state.md"},
    ),
    "multisets": (
        MultisetExamples(sets=2, batch_size=3, steps=2),
        lambda **kw: Tiny(3, images=False, **kw),
        {"multisets.png"},
    ),
}
SQUARE = Polygons(set_size=4, element_dim=2, train_size=4, test_size=4)


def check_files(paths: list[Path], folder: Path, names: set[str]) -> None:
    assert {path.name for path in folder.iterdir()} == names
    assert [path.name for path in paths] == [name for name in names if name.endswith(".png")]
    for path in paths:
        assert path.parent == folder
        assert path.read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize("one_shot", [False, True], ids=["steps", "one_shot"])
@pytest.mark.parametrize("kind", PROGRESSIONS)
def test_a_progression_writes_its_files(tmp_path: Path, kind: str, one_shot: bool) -> None:
    figure, dataset, names = PROGRESSIONS[kind]
    folder = tmp_path / "pictures"
    paths = figure(Approach(one_shot=one_shot), dataset(), folder, generator())
    check_files(paths, folder, names)


@pytest.mark.parametrize("bad", [None, math.nan, math.inf, 1e30], ids=str)
@pytest.mark.parametrize("kind", PROGRESSIONS)
def test_empty_sets_and_runaway_predictions_are_survived(
    tmp_path: Path, kind: str, bad: float | None
) -> None:
    figure, dataset, names = PROGRESSIONS[kind]
    task = Approach(bad=bad, mask=bad is not None, one_shot=True)
    check_files(figure(task, dataset(empty=True), tmp_path, generator()), tmp_path, names)


@pytest.mark.parametrize("kind", PROGRESSIONS)
def test_randomness_is_the_generators(tmp_path: Path, kind: str) -> None:
    figure, dataset, _ = PROGRESSIONS[kind]
    pictures = []
    for at, seed in enumerate((5, 5, 6)):
        torch.manual_seed(at)  # whatever the global state is
        before = torch.get_rng_state()
        [path] = figure(Approach(), dataset(), tmp_path / str(at), generator(seed))
        assert torch.equal(torch.get_rng_state(), before)
        pictures.append(path.read_bytes())
    assert pictures[0] == pictures[1] != pictures[2]


def test_a_whole_batch_is_predicted_for_a_few_pictures() -> None:
    seen = []

    class Watched(Approach):
        def forward(self, batch: Batch, steps: int | None = None) -> Outcome:
            seen.append((len(batch.target.x), steps, self.training, torch.is_grad_enabled()))
            return super().forward(batch, steps)

    dataset = Tiny(2, images=False)
    shown = predict(Watched(), dataset, sets=2, batch_size=3, steps=7, generator=generator())
    assert seen == [(3, 7, False, False)]
    assert shown.prediction.x.shape == (8, 2, SIZE, 2)
    assert torch.equal(shown.target.x, dataset.sets.x[:2])
    assert torch.equal(shown.input.mask, dataset.sets.mask[:2])
    assert [name for name, _ in stages(shown.prediction, [0, 7])] == ["start", "step 7"]


def test_matching_undoes_an_order() -> None:
    target = SetBatch(torch.rand(2, 5, 3, generator=generator()), torch.ones(2, 5))
    order = torch.tensor([[3, 1, 4, 0, 2], [0, 4, 2, 3, 1]])
    x = target.x.gather(1, order.unsqueeze(-1).expand(-1, -1, 3))
    assert torch.equal(match(SetBatch(x, target.mask), target), order)


@pytest.mark.parametrize("steps", [[], [-1, 3]])
def test_unusable_steps_are_refused(steps: list[int]) -> None:
    with pytest.raises(ConfigError, match=r"steps=.*name inner steps from 0 on"):
        MnistProgression(sets=1, batch_size=1, steps=steps)


def test_points_stand_as_in_the_image_and_fade_with_their_mask() -> None:
    _, [[panel]] = canvas.grid(1, [1.0], 1.0)
    row_column = torch.tensor([[0.25, 0.75], [0.5, 0.0]])
    draw_points(panel, row_column, torch.tensor([1.0, 0.25]), "black")
    [points] = panel.collections
    assert points.get_offsets().tolist() == [[0.75, 0.25], [0.0, 0.5]]  # across, down
    assert points.get_facecolor()[:, 3].tolist() == [1.0, 0.25]
    bottom, top = panel.get_ylim()
    assert bottom > top


def test_pairs_are_joined_in_the_first_two_features() -> None:
    _, [[panel]] = canvas.grid(1, [1.0], 1.0)
    target = torch.tensor([[0.0, 1, 9], [2, 3, 9], [4, 5, 9]])
    present = torch.tensor([True, False, True])
    draw_pairs(panel, target, target + 0.5, present, 6.0)
    rings, dots = panel.collections
    assert rings.get_offsets().tolist() == [[0, 1], [2, 3], [4, 5]]
    assert dots.get_offsets().tolist() == [[0.5, 1.5], [4.5, 5.5]]
    ends = [line.get_xydata().tolist() for line in panel.lines]
    assert ends == [[[0, 1], [0.5, 1.5]], [[4, 5], [4.5, 5.5]]]
    assert panel.get_xlim() == panel.get_ylim() == (-6, 6)
    assert plane(torch.tensor([[7.0]])).tolist() == [[7, 0]]


def test_each_multiset_is_shown_with_its_own_loss(tmp_path: Path, monkeypatch) -> None:
    class Shifted(nn.Module):
        def forward(self, batch: Batch, steps: int | None = None) -> Outcome:
            assert steps == 4
            x = batch.target.x.flip(1) + torch.tensor([0.2, 2.0, 0.0])[:, None, None]
            rows = SetBatch(x.unsqueeze(0), torch.ones(1, *x.shape[:2]))
            return Outcome(x.new_zeros(len(x)), rows, {})

    written = []
    monkeypatch.setattr(canvas, "save", lambda figure, path: written.append(figure) or path)
    figure = MultisetExamples(sets=3, batch_size=3, steps=4)
    figure(Shifted(), Spread(), tmp_path, generator())
    losses = [text.get_text() for axes in written[0].axes for text in axes.texts]
    assert losses == ["0.02", "1.5", "0"]  # Huber of 0.2, 2 and 0


def test_boxes_stand_in_the_image_and_fade_with_their_mask() -> None:
    _, [[panel]] = canvas.grid(1, [1.0], 1.0)
    boxes = torch.tensor([[0.25, 0.5, 0.75, 0.625], [0.0, 0.0, 1.0, 1.0]])
    draw_boxes(panel, torch.zeros(3, 4, 4), boxes, torch.tensor([1.5, 0.25]), torch.arange(2))
    first, second = panel.patches
    assert first.get_bbox().extents.tolist() == [0.25, 0.5, 0.75, 0.625]
    assert (first.get_alpha(), second.get_alpha()) == (1.0, 0.25)
    assert first.get_linewidth() > second.get_linewidth()


def test_the_plan_has_the_camera_at_the_bottom() -> None:
    assert place(0.6563, 0.7545) == pytest.approx((1, 0), abs=1e-3)  # CLEVR's "right"
    assert place(-0.7545, 0.6563) == pytest.approx((0, 1), abs=1e-3)  # and "behind"


# Positions in (rubber, metal), (cyan, blue, ...), (sphere, cube, ...), (large, small).
TRUE = np.array([[1, 2, 1, 0], [0, 3, 0, 1]])
AT = np.array([[1.5, 0.3, 0.7], [-2.4, 1.2, 0.35]])


def scene(attributes: np.ndarray, coords: np.ndarray, mask: list[float]) -> SetBatch:
    """One set of 4 rows from attributes and coordinates of its first rows."""
    x = torch.zeros(4, 18)
    x[: len(coords)] = torch.tensor(state_vectors(coords, attributes))
    return SetBatch(x, torch.tensor(mask))


def test_predicted_objects_are_read_and_compared() -> None:
    target = scene(TRUE, AT, [1, 1, 0, 0])
    guessed = TRUE[::-1].copy()
    guessed[0, 1] = 4  # red for purple
    prediction = scene(
        np.concatenate([guessed, TRUE[:1]]),
        np.concatenate([AT[::-1] + [[0, 0, 0.3], [0.03, 0.04, 0]], [[0.0, 0, 3]]]),
        [0.75, 0.9, 0.8, 0.1],
    )
    pairs = read_scene(prediction, target)
    assert [pair.true.position[0] if pair.true else None for pair in pairs[:3]] == [
        pytest.approx(-2.4),
        pytest.approx(1.5),
        None,
    ]
    assert pairs[0].true is not None
    words = pairs[0].true
    assert (words.size, words.color, words.material, words.shape) == (
        "small",
        "purple",
        "rubber",
        "sphere",
    )
    assert [pair.wrong for pair in pairs[:2]] == [{"color"}, set()]
    assert [pair.right for pair in pairs[:3]] == [False, True, False]
    distances = [pair.distance for pair in pairs[:3]]
    assert distances == [pytest.approx(0.3), pytest.approx(0.05), None]
    assert score(pairs) == "1 of 2 right, 1 too many"

    text = state_table([[("step 10", pairs)]])
    rows = text.split("\n| --- | --- |\n")[1].splitlines()
    assert rows == [
        "| (-2.40, 1.20, 0.65) **d=0.30**<br>small **red** rubber sphere "
        "| (-2.40, 1.20, 0.35)<br>small purple rubber sphere |",
        "| (1.53, 0.34, 0.70) d=0.05<br>large yellow metal cube "
        "| (1.50, 0.30, 0.70)<br>large yellow metal cube |",
        "| **too many:** (0.00, 0.00, 3.00)<br>large yellow metal cube |  |",
    ]


def test_an_object_that_is_hardly_present_is_missing() -> None:
    target = scene(TRUE, AT, [1, 1, 0, 0])
    pairs = read_scene(scene(TRUE, AT, [1, 0.4, 0, 0]), target)
    assert score(pairs) == "1 of 2 right"
    assert state_table([[("predicted", pairs)]]).count("**missing**") == 1


class Misnumber(nn.Module):
    """Right numbers but for as many elements as a set's place in the split; noise breaks no tie."""

    def forward(self, batch: Batch, steps: int | None = None) -> Outcome:
        x = batch.target.x[..., 2:].clone()
        for row, numbers in enumerate(x):
            count = int(batch.aux["wrong"][row])
            numbers[:count] = torch.eye(4)[3]
        x = x + 0.1 * torch.rand(x.shape)
        return Outcome(x.new_zeros(len(x)), SetBatch(x.unsqueeze(0), batch.target.mask), {})


class Numbered:
    """Six sets of classes a, b, a, a of which so many elements are to be numbered wrong."""

    wrong = torch.tensor([0, 3, 1, 2, 0, 1])

    def batches(
        self, split: str, size: int, generator: torch.Generator, *, shuffle: bool, drop_last: bool
    ) -> Iterator[Batch]:
        assert (split, shuffle, drop_last) == ("test", False, False)
        kinds, numbers = torch.tensor([[1.0, 0], [0, 1], [1, 0], [1, 0]]), torch.eye(4)
        rows = torch.cat([kinds, numbers[[0, 0, 1, 2]]], dim=-1)
        for wrong in self.wrong.split(size):
            x, mask = rows.expand(len(wrong), 4, 6), torch.ones(len(wrong), 4)
            yield Batch(SetBatch(x[..., :2], mask), SetBatch(x, mask), {"wrong": wrong})


def test_the_worst_numbered_sets_are_shown(tmp_path: Path) -> None:
    figure = NumberingFailures(sets=3, batch_size=2, cost=Cost.l2)
    pictures = []
    for at in range(2):
        torch.manual_seed(at)
        before = torch.get_rng_state()
        folder = tmp_path / str(at)
        paths = figure(Misnumber(), Numbered(), folder, generator())
        assert torch.equal(torch.get_rng_state(), before)
        check_files(paths, folder, {"numbering_failures.png", "numbering_failures.md"})
        pictures.append(paths[0].read_bytes())
    assert pictures[0] == pictures[1]
    table = (tmp_path / "0/numbering_failures.md").read_text().partition("\n| ")[2].splitlines()
    assert table == [
        "3 wrong | 2 wrong | 1 wrong |",
        "| --- | --- | --- |",
        "| (a, 2) | (a, 1) | (a, 1) |",
        "| **(a, 3)** | (a, 2) | (a, 2) |",
        "| **(a, 3)** | **(a, 3)** | **(a, 3)** |",
        "| **(b, 3)** | **(b, 3)** | (b, 0) |",
    ]


def measured(task: nn.Module, folder: Path, rotations: int = 90) -> dict[str, Any]:
    figure = RotatingPolygon(rotations=rotations, batch_size=91, pictures=3)
    check_files(
        figure(task, SQUARE, folder, generator()), folder, {"polygons.png", "polygons.json"}
    )
    found: dict[str, Any] = json.loads((folder / "polygons.json").read_text())
    return found


def test_a_known_jump_is_found(tmp_path: Path) -> None:
    def turn_roles(x: Tensor) -> Tensor:
        """Up to 30 degrees output i is vertex i, beyond it is the one before."""
        late = (torch.arange(len(x)) > 30)[:, None, None]
        return torch.where(late, x.roll(1, dims=1), x)

    found = measured(Rows(turn_roles), tmp_path)
    # from an angle t + 90i to t + 1 + 90(i - 1): a chord over 89 degrees
    expected = 2 * math.sin(math.radians(89 / 2))
    assert found["largest_move_of_an_output"] == pytest.approx(expected, abs=1e-5)
    assert found["move_of_the_points"] == pytest.approx(2 * math.sin(math.radians(0.5)), abs=1e-5)
    [(low, high)] = found["jumps_between_degrees"]
    assert (low, high) == pytest.approx((30, 31), abs=1e-3)


def test_outputs_that_follow_the_input_do_not_jump(tmp_path: Path) -> None:
    found = measured(Rows(lambda x: x.clone()), tmp_path)
    assert found["largest_move_of_an_output"] == pytest.approx(found["move_of_the_points"])
    assert found["jumps_between_degrees"] == []


def test_rotations_are_predicted_in_batches_of_one_size(tmp_path: Path) -> None:
    sizes = []

    def by_size(x: Tensor) -> Tensor:
        """As DSPN's batch-mean steps, these depend on how many sets are together."""
        sizes.append(len(x))
        return x * len(x)

    figure = RotatingPolygon(rotations=9, batch_size=4, pictures=3)
    figure(Rows(by_size), SQUARE, tmp_path, generator())
    assert sizes == [4, 4, 4]
    found = json.loads((tmp_path / "polygons.json").read_text())
    assert found["largest_move_of_an_output"] == pytest.approx(4 * found["move_of_the_points"])
    assert found["jumps_between_degrees"] == []


def test_a_list_that_depends_on_the_set_alone_must_jump(tmp_path: Path) -> None:
    def as_list(x: Tensor) -> Tensor:
        """The same points in the order of their directions, whatever their rows."""
        direction = torch.atan2(x[..., 0] - 1e-3, x[..., 1]) % (2 * math.pi)
        return x.gather(1, direction.argsort(-1).unsqueeze(-1).expand(-1, -1, 2))

    found = measured(Rows(as_list), tmp_path)
    assert found["largest_move_of_an_output"] > 1
    assert len(found["jumps_between_degrees"]) == 1


def test_outputs_that_are_not_numbers_are_survived(tmp_path: Path) -> None:
    found = measured(Rows(lambda x: x * math.nan), tmp_path, rotations=4)
    assert found["jumps_between_degrees"] == []


def test_moves_and_spans_by_hand() -> None:
    x = torch.tensor([[[0.0, 0], [1, 0]], [[3, 4], [1, 0]], [[3, 4], [1, 2]]])
    assert moves(x).tolist() == [[5, 0], [0, 2]]
    degrees = torch.tensor([0.0, 10, 20, 30, 40])
    assert spans(degrees, torch.tensor([True, True, False, True])) == [(0, 20), (30, 40)]
    angle = torch.linspace(0, math.pi, 3)
    assert moves(polygons(angle, 3)).flatten().tolist() == pytest.approx([math.sqrt(2)] * 6)


def test_rotating_refuses_more_pictures_than_rotations() -> None:
    with pytest.raises(ConfigError, match="pictures=9, rotations=8: must be"):
        RotatingPolygon(rotations=8, batch_size=8, pictures=9)


class Comparer(nn.Module):
    """Compares tiles by their brightness, for both axes; leaves them in their order."""

    def elements(self, x: Tensor) -> Tensor:
        return x

    def cost(self, x: Tensor) -> Tensor:
        brightness = x.sum(-1)
        cost = brightness.unsqueeze(-1) - brightness.unsqueeze(-2)
        return torch.stack([cost, cost.mT], 1)

    def forward(self, sets: SetBatch, steps: int) -> Tensor:
        return torch.eye(sets.x.shape[1]).expand(len(sets.x), -1, -1)


@pytest.mark.parametrize(
    "figure", [MosaicProgression(images=8, steps=1), TileSensitivity(images=8)]
)
def test_a_split_with_fewer_images_is_shown_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, figure: Any
) -> None:
    dataset = Mosaics(
        images="mnist", root=str(tmp_path), source="procedural", image_size=28, channels=1,
        mean=[0.1307], std=[0.3081], tiles=2, train_size=1, test_size=3, shuffled=True, data_seed=0,
    )  # fmt: skip
    written: list[Any] = []
    monkeypatch.setattr(canvas, "save", lambda drawn, path: written.append(drawn) or path)
    figure(nn.ModuleDict({"encoder": Comparer()}), dataset, tmp_path, generator())
    if isinstance(figure, MosaicProgression):
        assert len(written[0].axes) == 3 * (2 + 1)
    else:
        assert "average over 3 images" in written[0].texts[0].get_text()


def test_ends_of_pieces_that_no_set_reads_are_not_drawn() -> None:
    assert sorted({*range(21)} - {*ends_read(range(3, 11), 20).tolist()}) == [1, 19]
    assert ends_read([1, 3], 4).tolist() == [0, 2, 4]
    assert ends_read([4], 4).tolist() == [0, 1, 2, 3, 4]


def test_without_matplotlib_there_are_texts_and_warnings(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    loaded = [name for name in sys.modules if name.startswith("matplotlib.")]
    for name in ("matplotlib", *loaded):
        monkeypatch.setitem(sys.modules, name, None)
    figures = {kind: (figure, make()) for kind, (figure, make, _) in PROGRESSIONS.items()}
    figures["polygons"] = (RotatingPolygon(rotations=4, batch_size=2, pictures=2), SQUARE)
    for kind, (figure, dataset) in figures.items():
        task = Rows(lambda x: x) if kind == "polygons" else Approach()
        monkeypatch.setattr(
            experiment, "build", lambda *_, one=figure: {"first": one, "other": one}
        )
        caplog.clear()
        with caplog.at_level(logging.WARNING):
            assert experiment.draw({}, task, dataset, tmp_path, 0, torch.device("cpu")) == []
        assert len(caplog.messages) == 2 and "matplotlib" in caplog.messages[0]
        assert caplog.messages[1].startswith("no picture other: ")
        assert caplog.messages[1].endswith("; pip install -e '.[plots,tsne]' brings it")
    assert {path.name for path in tmp_path.glob("pictures/*")} == {"state.md", "polygons.json"}


def test_what_a_figure_needs_is_known_of_all() -> None:
    texts = [path.read_text() for path in (CONFIGS / "figures").glob("*.yaml")]
    used = {name for text in texts for name in re.findall(r"setexp\.figures\.\w+\.(\w+)", text)}
    assert used == DATA.keys() | PARTS.keys()


@pytest.mark.parametrize(
    ("experiment", "figures"),
    [
        ("polygons_fspool", "polygons"),
        ("polygons_mlp_chamfer", "polygons"),
        ("dspn_mnist", "mnist_progression"),
        ("dspn_mnist_mlp", "mnist_progression"),
        ("dspn_clevr_boxes", "boxes_progression"),
        ("dspn_clevr_boxes_lstm", "boxes_progression"),
        ("dspn_clevr_state", "state_progression"),
        ("dspn_clevr_state_mlp", "state_progression"),
        ("multisets_dspn", "multisets"),
    ],
)
def test_experiments_name_their_figures(experiment: str, figures: str) -> None:
    register()
    node = plain(compose_run([f"experiment={experiment}"]))["figures"]
    assert list(node) == [figures]
    if figures == "state_progression":
        assert node[figures]["steps"] == [0, 5, 10, 20]  # as in Table 6.6
    assert (CONFIGS / "figures" / f"{figures}.yaml").exists()
    assert check(node, "figures") == []
