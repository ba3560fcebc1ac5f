"""MNIST sets: extraction, the order of points, and resuming within a pass."""

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from setexp.datasets.mnist_images import load_mnist
from setexp.datasets.set_mnist import SetMnist, bright_pixels
from setexp.errors import ConfigError
from setexp.sets import Batch

REAL = Path(__file__).parents[1] / "../shared/datasets"
needs_mnist = pytest.mark.skipif(
    not (REAL / "MNIST/raw").is_dir(), reason="needs MNIST beside the checkout"
)


def make(**changes: Any) -> SetMnist:
    arguments = {
        "root": "nowhere", "source": "procedural", "set_size": 342, "element_dim": 2,
        "train_size": 100, "test_size": 30, "eval_subset": "first_tenth", "threshold": 0.1307,
        "data_seed": 0,
    }  # fmt: skip
    return SetMnist(**{**arguments, **changes})


@pytest.fixture(scope="module")
def dataset() -> SetMnist:
    return make()


def one_pass(dataset: SetMnist, seed: int = 0, split: str = "train", **kwargs: Any) -> list[Batch]:
    generator = torch.Generator().manual_seed(seed)
    options: dict[str, Any] = {"batch_size": 16, "shuffle": True, "drop_last": False} | kwargs
    return list(dataset.batches(split, generator=generator, **options))


def plain_sets(images: Tensor) -> list[Tensor]:
    """The definition, pixel by pixel."""
    return [
        torch.tensor(
            [
                (row / 27, column / 27)
                for row in range(28)
                for column in range(28)
                if (int(image[row, column]) / 255 - 0.1307) / 0.3081 > 0
            ]
        )
        for image in images
    ]


def in_reading_order(points: Tensor) -> Tensor:
    """Points (n, 2) by row, then column."""
    return torch.tensor(sorted(points.tolist()))


def test_points_are_those_of_the_definition(dataset: SetMnist) -> None:
    images, labels, _ = load_mnist("nowhere", "procedural", train=True, count=100, seed=0)
    batches = one_pass(dataset, shuffle=False)
    assert torch.equal(torch.cat([batch.aux["label"] for batch in batches]), labels)
    x = torch.cat([batch.target.x for batch in batches])
    mask = torch.cat([batch.target.mask for batch in batches])
    for points, present, expected in zip(x[:8], mask[:8], plain_sets(images[:8]), strict=True):
        torch.testing.assert_close(in_reading_order(points[present == 1]), expected)


def test_threshold_is_exact_and_strict() -> None:
    image = torch.zeros(1, 28, 28, dtype=torch.uint8)
    image[0, 0, :3] = torch.tensor([33, 34, 255])
    assert bright_pixels(image, 0.1307, 4).tolist() == [[1, 2, 1023, 1023]]
    assert bright_pixels(image, 34 / 255, 4).tolist() == [[2, 1023, 1023, 1023]]
    assert bright_pixels(torch.zeros_like(image), 0.1307, 2).tolist() == [[1023, 1023]]


def test_batch_layout(dataset: SetMnist) -> None:
    batch = one_pass(dataset)[0]
    assert batch.input is batch.target
    x, mask = batch.target
    assert x.shape == (16, 342, 2)
    assert mask.shape == (16, 342)
    assert x.dtype == mask.dtype == torch.float32
    assert batch.aux["label"].shape == (16,)
    assert batch.aux["label"].dtype == torch.int64
    assert x.min() >= 0
    assert x.max() <= 1


def test_padding_comes_last_and_is_zero(dataset: SetMnist) -> None:
    for batch in one_pass(dataset):
        x, mask = batch.target
        sizes = mask.sum(1, keepdim=True)
        assert sizes.min() >= 32
        assert torch.equal(mask, (torch.arange(342) < sizes).float())
        assert (x[mask == 0] == 0).all()


def test_shuffling_permutes_points(dataset: SetMnist) -> None:
    generator = torch.Generator().manual_seed(0)
    first, second = (
        next(dataset.batches("train", 100, generator, shuffle=False, drop_last=False)).target
        for _ in range(2)
    )
    assert torch.equal(first.mask, second.mask)
    code_a, code_b = ((s.x * 27).round() @ torch.tensor([28.0, 1.0]) for s in (first, second))
    assert torch.equal(code_a.sort(-1).values, code_b.sort(-1).values)
    assert (code_a != code_b).any(-1).all()
    assert (code_a[:, :32].diff(dim=-1) < 0).any(-1).all()  # and not in reading order


def test_every_order_of_points_is_equally_likely(dataset: SetMnist) -> None:
    """Over 400 passes, the first place of a set holds its upper half about half of the time."""
    generator = torch.Generator().manual_seed(0)
    upper = 0
    for _ in range(400):
        x, mask = next(
            dataset.batches("train", 1, generator, shuffle=False, drop_last=False)
        ).target
        rows = x[0, mask[0] == 1, 0]
        upper += int(rows[0] < rows.median())
    share = float((rows < rows.median()).float().mean())
    assert abs(upper / 400 - share) < 0.1  # four standard deviations


def test_batches_of_a_pass_have_orders_of_their_own() -> None:
    """Digits of two batches do not even share how their first points lie in the draw."""
    orders = []
    for batch in one_pass(make(train_size=2), batch_size=1):
        points = batch.target.x[0, batch.target.mask[0] == 1]
        reading = (points * 27).round() @ torch.tensor([28.0, 1.0])
        orders.append(reading.argsort()[:32].argsort())
    assert not torch.equal(*orders)


def test_passes_may_be_read_side_by_side(dataset: SetMnist) -> None:
    """All a pass draws from its generator is drawn at the call."""
    generator = torch.Generator().manual_seed(0)
    options: dict[str, Any] = {
        "batch_size": 16,
        "generator": generator,
        "shuffle": True,
        "drop_last": False,
    }
    waiting = dataset.batches("train", **options)
    list(dataset.batches("train", **options))
    assert torch.equal(next(waiting).target.x, one_pass(dataset)[0].target.x)


def test_a_pass_holds_every_set_once(dataset: SetMnist) -> None:
    def pixels(batches: list[Batch]) -> list[float]:
        weight = torch.tensor([29.0, 1.0], dtype=torch.float64)
        return sorted(
            v
            for batch in batches
            for v in (batch.target.x.double().square() @ weight).sum(1).tolist()
        )

    ordered = one_pass(dataset, shuffle=False)
    shuffled = one_pass(dataset)
    assert pixels(ordered) == pytest.approx(pixels(shuffled))
    labels = [torch.cat([b.aux["label"] for b in p]) for p in (ordered, shuffled)]
    assert not torch.equal(*labels)
    assert [len(b.target.x) for b in shuffled] == [16] * 6 + [4]
    assert [len(b.target.x) for b in one_pass(dataset, drop_last=True)] == [16] * 6


def test_sizes_and_evaluation_subset(dataset: SetMnist) -> None:
    assert [dataset.sizes(s) for s in ("train", "test", "test_full")] == [100, 30, 30]
    tenth, full = (
        make(train_size=1, test_size=1200, eval_subset=part) for part in ("first_tenth", "full")
    )
    assert (tenth.sizes("test"), tenth.sizes("test_full")) == (1000, 1200)
    assert (full.sizes("test"), full.sizes("test_full")) == (1200, 1200)
    first = one_pass(tenth, split="test", shuffle=False)[0]
    same = one_pass(tenth, split="test_full", shuffle=False)[0]
    assert torch.equal(first.target.x, same.target.x)
    with pytest.raises(ConfigError, match="split validation: .* train, test and test_full"):
        tenth.sizes("validation")


def test_fingerprint_follows_what_determines_the_data(dataset: SetMnist) -> None:
    assert make().fingerprint == dataset.fingerprint
    changes: list[dict[str, Any]] = [
        {"train_size": 99},
        {"set_size": 343},
        {"threshold": 0.2},
        {"data_seed": 1},
    ]
    prints = [make(**change).fingerprint for change in changes]
    assert len({dataset.fingerprint, *prints}) == 5


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"set_size": 40}, r"dataset.set_size=40: an image has \d+ points above"),
        ({"element_dim": 3}, "dataset.element_dim=3: a pixel has 2"),
        ({"eval_subset": "half"}, "dataset.eval_subset=half: choose one of first_tenth, full"),
        ({"threshold": 1.5}, "dataset.threshold=1.5: choose"),
        ({"train_size": 60001}, "dataset.train_size=60001: choose 1 to 60000"),
        ({"test_size": 0}, "dataset.test_size=0: choose 1 to 10000"),
        ({"source": "web"}, "dataset.source=web: choose one of auto, real, procedural"),
    ],
)
def test_bad_arguments_are_named(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        make(**{"train_size": 20, "test_size": 20} | arguments)


@needs_mnist
def test_real_mnist_has_the_published_sizes() -> None:
    dataset = make(root=str(REAL), source="auto", train_size=None, test_size=None)
    assert dataset.source == "real"
    assert [dataset.sizes(s) for s in ("train", "test", "test_full")] == [60000, 1000, 10000]
    batches = one_pass(dataset, batch_size=1000, shuffle=False)
    sizes = torch.cat([batch.target.mask.sum(1) for batch in batches])
    assert sizes.min() == 32
    assert sizes.max() == 342
    assert sizes.mean() == pytest.approx(133.1283, abs=1e-3)
    assert batches[0].aux["label"][:5].tolist() == [5, 0, 4, 1, 9]
    images = load_mnist(str(REAL), "real", train=True, count=4, seed=0)[0]
    for i, expected in enumerate(plain_sets(images)):
        found = batches[0].target.x[i, : len(expected)]
        torch.testing.assert_close(in_reading_order(found), expected)


def digits(**more: Any) -> SetMnist:
    return make(train_size=40, test_size=10, **more)


@pytest.mark.parametrize("split", ["train", "test", "test_full"])
def test_noise_is_added_to_the_input_alone(split: str) -> None:
    clean, noisy = (one_pass(digits(noise=noise), split=split)[0] for noise in (0.0, 0.05))
    assert torch.equal(noisy.target.x, clean.target.x)
    assert torch.equal(noisy.input.mask, clean.input.mask)
    noise = noisy.input.x - noisy.target.x
    assert abs(float(noise.std()) - 0.05) < 0.002
    assert (noise[noisy.input.mask == 0] != 0).all()
    assert (noisy.target.x[noisy.target.mask == 0] == 0).all()


def test_noise_may_leave_padding_alone() -> None:
    batch = one_pass(digits(noise=0.05, noise_on_padding=False))[0]
    assert (batch.input.x[batch.input.mask == 0] == 0).all()
    assert (batch.input.x[batch.input.mask == 1] != batch.target.x[batch.target.mask == 1]).all()


def test_the_mask_may_be_a_feature_with_noise_of_its_own() -> None:
    batch = one_pass(digits(mask_feature=True, element_dim=3, noise=0.05))[0]
    assert torch.equal(batch.target.x[..., 2], batch.target.mask)
    assert (batch.input.x[..., 2] != batch.target.mask).all()


def test_padding_to_the_largest_set_of_each_batch() -> None:
    full, ragged = (one_pass(digits(pad=pad)) for pad in ("full", "batch"))
    lengths = set()
    for whole, cut in zip(full, ragged, strict=True):
        n = int(whole.target.mask.sum(1).max())
        assert cut.target.x.shape[1] == n
        assert torch.equal(cut.target.x, whole.target.x[:, :n])
        lengths.add(n)
    assert len(lengths) > 1
    rounded = digits(pad="batch", pad_multiple=32)
    assert digits(pad="batch").ragged and not digits().ragged and not rounded.ragged
    sizes = [batch.target.x.shape[1] for batch in one_pass(rounded)]
    assert sizes == [min(342, -(-batch.target.x.shape[1] // 32) * 32) for batch in ragged]
    widest = one_pass(digits(pad="batch", pad_multiple=400))
    assert {batch.target.x.shape[1] for batch in widest} == {342}
    later = one_pass(digits(pad="batch"), start=1)
    assert all(torch.equal(a.target.x, b.target.x) for a, b in zip(later, ragged[1:], strict=True))


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({"element_dim": 3}, "dataset.element_dim=3"),
        ({"mask_feature": True}, "dataset.element_dim=2"),
        ({"noise": -1.0}, "dataset.noise=-1.0"),
        ({"pad": "no"}, "dataset.pad=no: choose one of full, batch"),
        ({"pad_multiple": 0}, "dataset.pad_multiple=0: at least 1"),
    ],
)
def test_noisy_sets_refuse_what_does_not_fit(arguments: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        digits(**arguments)
