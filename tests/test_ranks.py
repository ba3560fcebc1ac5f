"""Ranks, and what is carried by them, against plain sorting."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor
from torch.testing import assert_close

from setexp.ops import ranks as ranks_module
from setexp.ops.ranks import carry_by_rank, collect, place, weight_index

pytestmark = pytest.mark.usefixtures("float64")

seeds = st.integers(0, 2**16)
counts = st.integers(1, 6)
# one set is compared pair by pair, the other sorted
sizes = st.sampled_from([1, 2, 5, ranks_module._COMPARED, ranks_module._COMPARED + 1, 70])
dtypes = st.sampled_from([torch.float32, torch.float64, torch.bfloat16])


def normal(seed: int, *shape: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def assert_ranks(x: Tensor) -> None:
    found = weight_index(x)
    assert found.dtype == torch.int32
    assert found.is_contiguous()
    n, c = x.shape[-2:]
    position = x.sort(dim=-2, stable=True).indices.argsort(-2)
    assert torch.equal(found.long(), torch.arange(c) * n + position)


@given(seeds, counts, sizes, counts, dtypes, st.booleans())
def test_ranks_are_those_of_a_stable_sort(
    seed: int, b: int, n: int, c: int, dtype: torch.dtype, ties: bool
) -> None:
    x = normal(seed, 2, b, n, c).to(dtype)
    assert_ranks(x.round() if ties else x)


@pytest.mark.parametrize("n", [4, 40], ids=["compared", "sorted"])
def test_ranks_of_any_layout(n: int) -> None:
    x = torch.randn(3, n, n)
    for layout in (x.mT, x[:, ::2, 1::2], x[:1].expand(3, n, n), x[0], x[:0], x[:, :, :0]):
        assert_ranks(layout)


@pytest.mark.parametrize("repeats", [1, 10], ids=["compared", "sorted"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_ranks_of_infinities_and_both_zeros(repeats: int, dtype: torch.dtype) -> None:
    x = torch.tensor([0.0, -0.0, -torch.inf, 1.0, torch.inf, -0.0, -1.0, 0.0], dtype=dtype)
    assert_ranks(x.repeat(repeats).unsqueeze(-1))


@pytest.fixture
def three_threads(monkeypatch: pytest.MonkeyPatch) -> Iterator[list]:
    workers: list = []
    monkeypatch.setattr(torch, "get_num_threads", lambda: 3)
    monkeypatch.setattr(ranks_module, "_workers", workers)
    yield workers
    for pool in workers:
        pool.shutdown()


@pytest.mark.parametrize("shape", [(601, 8, 40), (7, 342, 64), (1, 40, 1 << 13), (2, 1 << 17, 1)])
def test_ranks_in_threads(shape: tuple[int, ...], three_threads: list) -> None:
    assert_ranks(torch.randn(shape))
    assert three_threads


def test_ranks_of_small_input_start_no_threads(three_threads: list) -> None:
    assert_ranks(torch.randn(8, 8, 8))
    assert not three_threads


def carried(x: Tensor, mask: Tensor | None, weights: Tensor, descending: bool) -> Tensor:
    """The same by loops."""
    out = torch.zeros_like(x)
    for b, c in ((b, c) for b in range(x.shape[0]) for c in range(x.shape[2])):
        there = range(x.shape[1]) if mask is None else mask[b, :, 0].nonzero().flatten().tolist()
        order = sorted(there, key=lambda i: x[b, i, c].item(), reverse=descending)
        own = weights if weights.dim() == 2 else weights[b]
        for position, i in enumerate(order):
            out[b, i, c] = own[c, position]
    return out


@given(seeds, counts, st.integers(1, 5), counts, st.booleans(), st.booleans(), st.booleans())
def test_weights_are_carried_to_elements(
    seed: int, b: int, n: int, c: int, masked: bool, own: bool, descending: bool
) -> None:
    x = normal(seed, b, n, c)
    weights = normal(seed + 1, b, c, n) if own else normal(seed + 1, c, n)
    mask = None
    if masked:
        generator = torch.Generator().manual_seed(seed)
        mask = torch.randint(2, (b, n, 1), generator=generator).to(x.dtype)
    found = carry_by_rank(x, mask, weights, descending=descending)
    found = found if mask is None else found * mask
    assert torch.equal(found, carried(x, mask, weights, descending))


@given(seeds, counts, counts, st.integers(1, 5), counts)
def test_collect_is_the_transpose_of_place(seed: int, g: int, r: int, n: int, c: int) -> None:
    index = weight_index(normal(seed, g, r, n, c))
    weights, grad = normal(seed + 1, g, c, n), normal(seed + 2, g, r, n, c)
    assert_close((place(index, weights) * grad).sum(), (weights * collect(index, grad)).sum())


def test_derivatives_of_place_and_collect() -> None:
    index = weight_index(torch.randn(2, 3, 4, 2))
    weights = torch.randn(2, 2, 4, requires_grad=True)
    grad = torch.randn(2, 3, 4, 2, requires_grad=True)
    torch.autograd.gradcheck(lambda w: place(index, w), weights)
    torch.autograd.gradgradcheck(lambda w: place(index, w), weights)
    torch.autograd.gradcheck(lambda g: collect(index, g), grad)


@pytest.mark.filterwarnings("ignore:The .grad attribute:UserWarning")  # opcheck looks at it
def test_the_operators_keep_the_contract_of_operators() -> None:
    x = torch.randn(2, 3, 4, 5)
    index = weight_index(x)
    torch.library.opcheck(torch.ops.setexp.weight_index.default, (x,))
    torch.library.opcheck(torch.ops.setexp.weight_index.default, (x.mT,))
    weights = torch.randn(2, 4, 5).mT.requires_grad_()
    torch.library.opcheck(torch.ops.setexp.place.default, (index, weights))
    grad = torch.randn(2, 3, 5, 4).mT.requires_grad_()
    torch.library.opcheck(torch.ops.setexp.collect.default, (index, grad))


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_index_under_vmap_is_a_loop(axis: int) -> None:
    x = torch.randn(3, 3, 4, 5)
    mapped = torch.func.vmap(weight_index, in_dims=axis)(x)
    assert torch.equal(mapped, torch.stack([weight_index(part) for part in x.unbind(axis)]))


@pytest.mark.parametrize("own", [False, True], ids=["shared weights", "own weights"])
@pytest.mark.parametrize("axes", [(0, 0), (1, 1), (0, None), (None, 0)])
def test_carrying_under_vmap_is_a_loop(axes: tuple[int | None, int | None], own: bool) -> None:
    """Values and gradients, as in a stack of seeds."""
    x = torch.randn(3, 3, 4, 5)
    weights = torch.randn(3, 3, 5, 4) if own else torch.randn(5, 5, 4)
    if axes[0] is None:
        x = x[0]
    if axes[1] is None:
        weights = weights[0]
    weights.requires_grad_()

    def value(x: Tensor, weights: Tensor) -> Tensor:
        return (carry_by_rank(x, None, weights, descending=True) * x.cos()).sum((1, 2))

    if own:
        x, weights = x[..., :3, :, :], weights[..., :3, :, :]
    elif axes[1] is not None:
        weights = weights.movedim(0, axes[1])[:3] if axes[1] == 0 else weights[:, :3]
    mapped = torch.func.vmap(value, in_dims=axes)(x, weights)
    each = []
    for i in range(3):
        one = x if axes[0] is None else x.select(axes[0], i)
        each.append(value(one, weights if axes[1] is None else weights.select(axes[1], i)))
    assert torch.equal(mapped, torch.stack(each))
