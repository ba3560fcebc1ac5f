"""Latent sets: images to elements, elements to pictures and distances (SSLR)."""

from __future__ import annotations

import itertools
import math
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from smoke_runs import complaint, config, train, weights
from torch import Tensor
from torch.testing import assert_close

from setexp.build import build
from setexp.decoders.channels import Channels
from setexp.decoders.element_pictures import ElementPictures
from setexp.decoders.set_distance import SetDistance, VectorDistance
from setexp.encoders.grouped_cnn import GroupedCNN
from setexp.losses.picture import PictureLoss, PixelCost, PixelReduction, cross_entropy
from setexp.metrics.disentanglement import Disentangled, ElementImage
from setexp.metrics.picture_iou import Direction, ObjectIoU, PictureIoU, rectangles
from setexp.ops.filled_boxes import filled_boxes
from setexp.ops.superposition import Superposition, superpose
from setexp.sets import Batch, SetBatch
from setexp.tasks.match import Match, SquaredError

seeds = st.integers(0, 2**16)
N, D, SIDE = 4, 3, 16
SRN = "experiment=sslr_circles_srn"


def cnn(**changes: Any) -> GroupedCNN:
    settings = {"widths": [4, 8], "strides": [2, 4], "image_size": SIDE, "set_size": N}
    return GroupedCNN(**{**settings, "element_dim": D, "latent": 5, **changes})


# Images to elements


def test_an_element_is_made_of_its_own_channels() -> None:
    model = cnn().eval()
    image = torch.rand(2, 3, SIDE, SIDE)
    encoding = model(image)
    assert encoding.elements is not None
    assert encoding.z.shape == (2, 5) and encoding.elements.x.shape == (2, N, D)
    features = model.trunk(image)
    groups = features.reshape(2, N, 2, 2, 2).flatten(2)  # 8 channels, 2 x 2 places
    assert_close(encoding.elements.x, groups @ model.guess.weight.T + model.guess.bias)
    assert_close(encoding.z, features.flatten(1) @ model.embed.weight.T + model.embed.bias)
    assert (encoding.elements.mask == 1).all()


def test_no_vector() -> None:
    assert cnn(latent=0)(torch.rand(2, 3, SIDE, SIDE)).z.shape == (2, 0)


@pytest.mark.parametrize("changes", [{"set_size": 3}, {"image_size": 2}])
def test_groups_and_places_must_fit(changes: dict[str, int]) -> None:
    with pytest.raises(ValueError, match="set size must divide the last width, 8"):
        cnn(**changes)


def test_printed_sizes() -> None:
    """Trunk to 512 x 2 x 2 for circles, 512 x 4 x 4 for CLEVR; groups of 128 and 512 features."""
    with torch.device("meta"):
        for side, group in ((64, 128), (128, 512)):
            model = cnn(
                widths=[64, 128, 256, 512], strides=[2, 2, 2, 4], image_size=side, set_size=16,
                element_dim=10, latent=100,
            )  # fmt: skip
            assert model.guess.in_features == group
            assert model.embed.in_features == 16 * group
            assert [type(m).__name__ for m in model.trunk[:4]] == [
                "Conv2d", "ReLU", "Conv2d", "BatchNorm2d",
            ]  # fmt: skip


def test_channels_are_handed_over() -> None:
    encoding = cnn()(torch.rand(2, 3, SIDE, SIDE))
    assert torch.equal(Channels()(encoding).x[0], encoding.elements.x)


def test_a_decoder_of_elements_refuses_an_encoder_without(tmp_path: Any) -> None:
    overrides = ["experiment=dspn_clevr_state", "dataset.source=procedural", "decoder=refiner"]
    said = complaint(*overrides, "scale=smoke", "figures=none", f"paths.outputs={tmp_path}")
    assert said.startswith("encoder: it yields a vector alone, and this decoder reads elements; ")
    assert "\n" not in said


def test_the_guess_is_trained_only_where_it_is_learned(tmp_path: Any) -> None:
    """Under a refiner, as released, H_set stays what it was; the trunk below learns through z."""
    nodes = config(SRN, "scale=smoke")
    for learned in (False, True):
        nodes["task"]["decoder"]["initial"]["learned"] = learned
        task, dataset = build(nodes["task"], "task"), build(nodes["dataset"], "dataset")
        how = {"shuffle": False, "drop_last": False}
        batch = next(dataset.batches("train", 4, torch.Generator(), **how))
        task(batch).loss.sum().backward()
        assert (task.encoder.guess.weight.grad is not None) == learned
        assert task.encoder.trunk[0].weight.grad.abs().sum() > 0


def test_the_implicit_refiner_is_one_line(tmp_path: Any) -> None:
    usual, implicit = (
        weights(train(tmp_path / name, SRN, "trainer.steps=2", *more) / "seed-0")
        for name, more in (("usual", []), ("implicit", ["decoder.gradient=implicit"]))
    )
    assert usual.keys() == implicit.keys()
    assert any(not torch.equal(usual[name], implicit[name]) for name in usual)


def test_a_split_without_enough_circles_is_refused_before_training(tmp_path: Any) -> None:
    overrides = [SRN, "scale=smoke", f"paths.outputs={tmp_path}"]
    said = complaint(*overrides, "dataset.set_size=3")
    assert said == "split circles_4: dataset.set_size=3 circles at most"
    assert not list(tmp_path.iterdir())


# Elements to pictures


@given(seed=seeds)
def test_a_superposition_does_not_see_an_order(seed: int) -> None:
    torch.manual_seed(seed)
    raw, order = 5 * torch.randn(2, N, 3, 2, 2), torch.randperm(N)
    shown, other = superpose(raw), superpose(raw[:, order])
    assert_close(shown.picture, other.picture)
    assert_close(shown.parts[:, order], other.parts)
    assert_close(shown.parts.sum(1), shown.picture)
    assert shown.picture.min() >= 0 and shown.picture.max() <= 1
    assert (shown.parts <= shown.alone).all()


def test_pictures_of_elements_are_alike_for_all() -> None:
    model = ElementPictures(element_dim=D, widths=[4, 4, 4], image_size=32).eval()
    x = torch.randn(2, N, D)
    x[1, 2] = x[0, 1]
    pictures = model(x)
    assert pictures.shape == (2, N, 3, 32, 32)
    assert_close(pictures[1, 2], pictures[0, 1])
    with pytest.raises(ValueError, match="image_size=24"):
        ElementPictures(element_dim=D, widths=[4, 4, 4], image_size=24)


def shown_of(parts: Tensor) -> Superposition:
    """Two elements of 2 x 2 pixels per sample, their pictures alone twice as bright."""
    return Superposition(parts.sum(1), parts, 2 * parts)


def test_disentangled_by_hand() -> None:
    parts = torch.zeros(3, 2, 3, 2, 2)
    parts[0, 0, 1, 0, 0] = 0.2  # one element shows something
    parts[1, :, 0, 1, 1] = 0.11  # two do
    parts[2, 0, 0, 0, 0] = 0.06  # none does, unless it is looked at alone
    objects = SetBatch(torch.zeros(3, 4, 4), torch.tensor([[1.0, 0, 0, 0]] * 3))
    for image, expected in ((ElementImage.weighted, [1, 0, 0]), (ElementImage.alone, [1, 0, 1])):
        measure = Disentangled(threshold=0.1, image=image)
        assert measure(shown_of(parts), parts[:, 0], objects).tolist() == expected


def test_boxes_are_filled_around_what_touches() -> None:
    mask = torch.zeros(2, 6, 7, dtype=torch.bool)
    mask[0, 0, 0] = mask[0, 1, 1] = mask[0, 2, 0] = True  # touch at corners
    mask[0, 4, 3] = mask[0, 5, 3] = True
    mask[1, ::4, :5] = mask[1, :5, ::4] = mask[1, 2, 2] = True  # a ring around a pixel
    filled = filled_boxes(mask)
    expected = torch.zeros_like(mask)
    expected[0, :3, :2] = expected[0, 4:6, 3] = expected[1, :5, :5] = True
    assert torch.equal(filled, expected)


def boxes(*rows: list[float]) -> SetBatch:
    x = torch.zeros(1, 3, 4)
    x[0, : len(rows)] = torch.tensor(rows).reshape(-1, 4)
    return SetBatch(x, (torch.arange(3) < len(rows)).float().unsqueeze(0))


def test_picture_iou_by_hand() -> None:
    picture = torch.zeros(1, 3, 2, 2)
    picture[0, 0, 0] = torch.tensor([1.0, 0.001])  # anything but zero is true
    parts = torch.zeros(1, 1, 3, 2, 2)
    parts[0, 0, 0, :, 0] = torch.tensor([0.01, 0.02])
    parts[0, 0, 1] = 0.009
    measure = PictureIoU(threshold=0.01)
    nothing = boxes()
    assert measure(shown_of(parts), picture, nothing).item() == pytest.approx(1 / 3, abs=1e-5)
    assert measure(shown_of(0 * parts), 0 * picture, nothing).item() == 1


@pytest.mark.parametrize(
    ("direction", "count_empty", "expected"),
    [
        # of 4 slots, two true boxes: found by 6 of 9 pixels, and not at all
        (Direction.true_to_predicted, True, (6 / 9 + 0 + 1 + 1) / 4),
        (Direction.true_to_predicted, False, (6 / 9 + 0) / 2),
        # one element shows something
        (Direction.predicted_to_true, True, (6 / 9 + 1 + 1 + 1) / 4),
        (Direction.predicted_to_true, False, 6 / 9),
    ],
)
def test_object_iou_by_hand(direction: Direction, count_empty: bool, expected: float) -> None:
    parts = torch.zeros(1, 4, 3, 8, 8)
    parts[0, 1, 0, 1:4, 1] = parts[0, 1, 2, 1, 2] = 0.5  # a box of 3 x 2 pixels
    true = boxes([1 / 8, 1 / 8, 4.9 / 8, 4.9 / 8], [5 / 8, 5 / 8, 7 / 8, 7 / 8])
    measure = ObjectIoU(threshold=0.01, direction=direction, count_empty=count_empty)
    found = measure(shown_of(parts), torch.zeros(1, 3, 8, 8), true)
    assert found.item() == pytest.approx(expected, abs=1e-5)


@pytest.mark.parametrize(("threshold", "shows"), [(0.2, True), (0.25, False), (0.3, False)])
def test_an_object_is_shown_by_more_than_the_threshold(threshold: float, shows: bool) -> None:
    parts = torch.zeros(1, 1, 3, 2, 2)
    parts[0, 0, 0, 0, 0] = 0.25
    measure = Disentangled(threshold=threshold, image=ElementImage.weighted)
    one = SetBatch(torch.zeros(1, 1, 4), torch.ones(1, 1))
    assert measure(shown_of(parts), parts[:, 0], one).tolist() == [shows]


@pytest.mark.parametrize(("threshold", "iou"), [(0.2, 1), (0.25, 1), (0.3, 0)])
def test_a_pixel_of_a_box_has_at_least_the_threshold(threshold: float, iou: int) -> None:
    parts = torch.zeros(1, 1, 3, 8, 8)
    parts[0, 0, 0, 1:3, 1:3] = 0.25
    how = {"direction": Direction.true_to_predicted, "count_empty": False}
    measure = ObjectIoU(threshold=threshold, **how)
    found = measure(shown_of(parts), parts[:, 0], boxes([1 / 8, 1 / 8, 3 / 8, 3 / 8]))
    assert found.item() == pytest.approx(iou, abs=1e-5)


def test_boxes_beyond_the_edge_are_cut() -> None:
    (drawn,) = rectangles(boxes([-0.3, 0.5, 0.2, 1.2]), torch.Size((4, 8)))
    assert drawn[0].nonzero().tolist() == [[2, 0], [3, 0]]
    assert not drawn[1:].any()


def test_picture_losses_by_hand() -> None:
    picture = torch.full((2, 3, 2, 2), 0.25)
    target = torch.zeros(2, 3, 2, 2)
    target[1] = 1
    shown = Superposition(picture, picture.unsqueeze(1), picture.unsqueeze(1))

    def loss(cost: PixelCost, reduction: PixelReduction) -> list[float]:
        return PictureLoss(cost=cost, reduction=reduction)(shown, target).tolist()

    assert loss(PixelCost.squared, PixelReduction.sum) == [12 / 16, 12 * 9 / 16]
    assert loss(PixelCost.squared, PixelReduction.mean) == [1 / 16, 9 / 16]
    expected = [-math.log(0.75), -math.log(0.25)]
    assert loss(PixelCost.cross_entropy, PixelReduction.mean) == pytest.approx(expected)


def test_cross_entropy_is_pytorchs_and_finite() -> None:
    p, target = torch.rand(50).requires_grad_(), torch.rand(50)
    own, other = cross_entropy(p, target), torch.nn.functional.binary_cross_entropy
    assert_close(own, other(p, target, reduction="none"))
    (mine,) = torch.autograd.grad(own.sum(), p)
    (theirs,) = torch.autograd.grad(other(p, target, reduction="sum"), p)
    assert_close(mine, theirs)
    edges = torch.tensor([0.0, 0.0, 1.0, 1.0]).requires_grad_()
    cross_entropy(edges, torch.tensor([0.0, 1.0, 0.0, 1.0])).sum().backward()
    assert edges.grad is not None and edges.grad.isfinite().all()


# Pairs


@given(seed=seeds)
def test_distance_of_sets_is_that_of_the_best_matching(seed: int) -> None:
    torch.manual_seed(seed)
    model = SetDistance(element_dim=D, embed_dim=2)
    first, second = torch.randn(1, N, D), torch.randn(1, N, D)
    a, b = model.attribute(first)[0], model.attribute(second)[0]
    huber = torch.nn.functional.smooth_l1_loss
    best = min(
        itertools.permutations(range(N)), key=lambda order: float(huber(a, b[list(order)]).detach())
    )
    found = model(first, second)
    ways = (model.location(first)[0] - model.location(second)[0, list(best)]).square().sum()
    assert_close(found.location[0], ways)
    assert_close(found.attribute[0], (a - b[list(best)]).square().sum())
    mixed = model(first[:, torch.randperm(N)], second[:, torch.randperm(N)])
    assert_close(mixed.location, found.location)


def test_a_set_is_no_way_from_itself() -> None:
    x = torch.randn(2, N, D)
    found = SetDistance(element_dim=D, embed_dim=2)(x, x[:, [2, 0, 1, 3]])
    assert_close(found.location, torch.zeros(2))
    assert_close(found.attribute, torch.zeros(2))


def test_vectors() -> None:
    model = VectorDistance(features=3)
    a, b = torch.randn(2, 1, 3), torch.randn(2, 1, 3)
    expected = (a - b).square()[:, 0] @ model.score.weight[0] + model.score.bias
    assert_close(model(a, b).location, expected)
    assert model(a, b).attribute.tolist() == [0, 0]


class Fixed(torch.nn.Module):
    """The pixels as elements, as they are."""

    def forward(self, x: Any, steps: int | None = None) -> Any:
        return x if isinstance(x, SetBatch) else SetBatch(x.unsqueeze(0), x[..., 0].unsqueeze(0))


@pytest.mark.parametrize(("l2_error", "times"), [(SquaredError.pair, 1), (SquaredError.batch, 2)])
def test_matching_loss_and_errors_by_hand(l2_error: SquaredError, times: int) -> None:
    distance = SetDistance(element_dim=1, embed_dim=1)
    torch.nn.init.constant_(distance.attribute.weight, 2.0)
    torch.nn.init.constant_(distance.location.weight, 1.0)
    task = Match(
        encoder=Fixed(), decoder=Fixed(), distance=distance, picture=None, loss=None,
        location_weight=32.0, attribute_weight=10.0, l2_error=l2_error,
    )  # fmt: skip
    sets = torch.tensor([[[[1.0], [5.0]], [[5.0], [2.0]]], [[[0.0], [9.0]], [[0.0], [9.0]]]])
    outcome = task(Batch(sets, torch.tensor([2.0, 0.5]), {}))
    # ways 1 and 0, so errors -1 and -0.5; attributes differ by 2 where ways do by 1
    assert outcome.loss.tolist() == [32 * 1 + 10 * 4, 32 * 0.25]
    assert outcome.stats["relative_error"].tolist() == [0.5, 1.0]
    assert outcome.stats["l2_error"].tolist() == [times * 1.0, times * 0.25]


def test_both_pictures_are_normalised_alike() -> None:
    """Batch norm of a batch of pairs sees them together: what is equal stays equal in training."""
    task = Match(
        encoder=cnn(), decoder=Channels(), distance=SetDistance(element_dim=D, embed_dim=1),
        picture=None, loss=None, location_weight=1.0, attribute_weight=1.0,
        l2_error=SquaredError.pair,
    )  # fmt: skip
    sets: list[Tensor] = []
    task.distance.register_forward_pre_hook(lambda _, given: sets.extend(given))
    images = torch.rand(3, 2, 3, SIDE, SIDE)
    images[0, 1] = images[0, 0]
    task(Batch(images, torch.ones(3), {}))
    first, second = sets
    assert_close(first[0], second[0])
    encoding = task.encoder(images.transpose(0, 1).flatten(0, 1))  # the released code's order
    assert_close(torch.cat([first, second]), encoding.elements.x)


def test_pictures_and_their_loss_belong_together() -> None:
    with pytest.raises(ValueError, match="picture and loss belong together"):
        Match(
            encoder=Fixed(), decoder=Fixed(), distance=VectorDistance(features=1), picture=Fixed(),
            loss=None, location_weight=1.0, attribute_weight=1.0, l2_error=SquaredError.pair,
        )  # fmt: skip
