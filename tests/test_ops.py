"""Relaxed sorting, matching, costs, pairs and layers against plain definitions."""

from __future__ import annotations

import itertools
import sys
from types import SimpleNamespace

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.testing import assert_close

from setexp.errors import NonFiniteError
from setexp.ops import assignment as assignment_module
from setexp.ops import sorting
from setexp.ops.assignment import assignment
from setexp.ops.costs import Cost, matched_cost, pair_cost
from setexp.ops.layers import LSTM, MLP, Linear, LinearInit
from setexp.ops.pairs import add_pairs, l1_distances, pair_mask
from setexp.ops.position_weights import PositionWeights, WeightInit
from setexp.ops.sorting import relaxed_order

pytestmark = pytest.mark.usefixtures("float64")

seeds = st.integers(0, 2**16)
sizes = st.integers(1, 6)


def normal(seed: int, *shape: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


# Relaxed sorting


def neural_sort(x: Tensor) -> Tensor:
    """Permutation matrix of one feature, (n,) to (positions, elements): Grover et al., 2019."""
    n = len(x)
    rows = []
    for p in range(1, n + 1):
        spread = torch.stack([(x[i] - x).abs().sum() for i in range(n)])
        rows.append(((n + 1 - 2 * p) * x - spread).softmax(0))
    return torch.stack(rows)


@given(seeds, st.integers(2, 6), st.booleans())
def test_relaxed_order_is_neural_sort(seed: int, n: int, masked: bool) -> None:
    x = normal(seed, 3, 2, n).requires_grad_()
    weights = normal(seed + 1, 3, 2, n).requires_grad_()
    cotangent = normal(seed + 2, 3, 2, n)
    size = torch.tensor([n, n - 1, 1]) if masked else torch.tensor([n, n, n])
    mask = (torch.arange(n) < size[:, None]).to(x.dtype).unsqueeze(1)
    present = (weights * mask, cotangent * mask)
    expected, matrices = torch.zeros(()), []
    for b, c in itertools.product(range(3), range(2)):
        k = int(size[b])
        matrices.append(neural_sort(x[b, c, :k]))
        carried = matrices[-1].T @ present[0][b, c, :k]
        expected = expected + carried @ present[1][b, c, :k]
    order = relaxed_order(x, mask if masked else None)
    value = (order.to_elements(present[0]) * present[1]).sum()
    assert_close(value, expected, rtol=1e-12, atol=1e-12)
    for matrix, (b, c) in zip(matrices, itertools.product(range(3), range(2)), strict=True):
        k = len(matrix)
        assert_close(order.permutation[b, c, :k, :k], matrix, rtol=1e-12, atol=1e-12)
        assert not order.permutation[b, c, :, k:].any()
    for ours, plain in zip(
        torch.autograd.grad(value, (x, weights), retain_graph=True),
        torch.autograd.grad(expected, (x, weights)),
        strict=True,
    ):
        assert_close(ours, plain, rtol=1e-10, atol=1e-10)


@given(seeds, st.integers(1, 9), st.booleans(), st.booleans())
def test_in_parts_is_the_whole_with_equal_features_too(
    seed: int, n: int, masked: bool, ties: bool
) -> None:
    """Values and gradients."""
    x = normal(seed, 4, 3, n)
    x = (x.round() if ties else x).requires_grad_()
    weights = normal(seed + 1, 4, 3, n).requires_grad_()
    size = torch.tensor([n, max(1, n - 1), 1, 0])
    mask = (torch.arange(n) < size[:, None]).to(x.dtype).unsqueeze(1) if masked else None
    found = []
    for whole in (1 << 30, 0):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(sorting, "_WHOLE_NUMEL", whole)
            carried = relaxed_order(x, mask).to_elements(weights)
        value = (carried * normal(seed + 2, 4, 3, n)).sum()
        found.append((carried, *torch.autograd.grad(value, (x, weights))))
    for one, other in zip(*found, strict=True):
        assert_close(one, other, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("shared", [False, True], ids=["own weights", "shared weights"])
@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("parts", [False, True], ids=["whole", "in parts"])
def test_relaxed_order_first_and_second_derivatives(
    parts: bool, masked: bool, shared: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    if parts:
        monkeypatch.setattr(sorting, "_WHOLE_NUMEL", 0)
    x = torch.randn(4, 2, 4, requires_grad=True)
    w = torch.randn(2, 4) if shared else torch.randn(4, 2, 4)
    mask = (torch.arange(4) < torch.tensor([4, 3, 1, 0])[:, None]).to(x.dtype).unsqueeze(1)

    def carried(x: Tensor, w: Tensor) -> Tensor:
        return relaxed_order(x, mask if masked else None).to_elements(w)

    torch.autograd.gradcheck(carried, (x, w.requires_grad_()))
    torch.autograd.gradgradcheck(carried, (x, w))


@pytest.mark.parametrize("features", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("parts", [False, True], ids=["whole", "in parts"])
def test_relaxed_order_is_in_single_precision_under_autocast(
    parts: bool, features: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    if parts:
        monkeypatch.setattr(sorting, "_WHOLE_NUMEL", 0)
    x, w = torch.randn(4, 2, 8).to(features), torch.randn(2, 8, dtype=torch.float32)

    found = []
    for half in (True, False):
        given_x = (x.clone() if half else x.float()).requires_grad_()
        with torch.autocast("cpu", torch.bfloat16, enabled=half):
            value = relaxed_order(given_x, None).to_elements(w)
        found.append((value, *torch.autograd.grad(value.square().sum(), given_x)))
    assert torch.equal(found[0][0], found[1][0])
    assert torch.equal(found[0][1], found[1][1].to(features))


@given(seeds, sizes)
def test_rows_of_the_relaxed_order_sum_to_one(seed: int, n: int) -> None:
    mask = (torch.arange(n) < torch.tensor([n, 1])[:, None]).to(torch.float64).unsqueeze(1)
    for order in (relaxed_order(normal(seed, 2, 3, n), m) for m in (None, mask)):
        assert_close(order.permutation.sum(-1), torch.ones(2, 3, n))


@given(seeds, sizes)
def test_well_separated_values_are_sorted_hard(seed: int, n: int) -> None:
    ranks = normal(seed, 3, n).argsort(-1)
    x = 50.0 * ranks + normal(seed + 1, 3, 1)
    order = x.argsort(-1, descending=True)
    assert_close(relaxed_order(x, None).permutation, torch.eye(n)[order])


def test_relaxed_order_of_an_empty_set_is_finite() -> None:
    x = torch.randn(1, 2, 3, requires_grad=True)
    order = relaxed_order(x, torch.zeros(1, 1, 3))
    carried = order.to_elements(torch.zeros(2, 3))  # the weights of an empty set
    assert torch.isfinite(order.permutation).all()
    assert not carried.any()
    assert not torch.autograd.grad(carried.sum(), x)[0].any()


# Position weights


@pytest.mark.parametrize(
    ("n", "ratios"), [(1, [0]), (2, [0, 1]), (3, [0, 1 / 2, 1]), (4, [0, 1 / 3, 2 / 3, 1])]
)
def test_ratios_of_small_sets(n: int, ratios: list[float]) -> None:
    weights = PositionWeights(features=1, n_pieces=20, set_size=None, init=WeightInit.ones)
    weights.load_state_dict({"weight": torch.linspace(0, 1, 21).unsqueeze(0)})
    expected = torch.tensor([ratios], dtype=torch.float64)
    assert_close(weights(n, None), expected)
    padded = weights(n + 2, torch.tensor([[float(n)]]))
    assert_close(padded, F.pad(expected, (0, 2)).unsqueeze(0))


@given(seeds, sizes, st.integers(1, 30))
def test_weights_are_interpolated(seed: int, n: int, n_pieces: int) -> None:
    torch.manual_seed(seed)
    weights = PositionWeights(features=2, n_pieces=n_pieces, set_size=None, init=WeightInit.normal)
    knots, ratios = np.linspace(0, 1, n_pieces + 1), np.arange(n) / max(n - 1, 1)
    for row, parameters in zip(weights(n, None), weights.weight.detach(), strict=True):
        np.testing.assert_allclose(row.detach(), np.interp(ratios, knots, parameters), atol=1e-12)


def test_initial_weights() -> None:
    assert WeightInit.ones(2, 3).tolist() == [[1, 1, 1], [1, 1, 1]]
    assert abs(WeightInit.normal(100, 100).std() - 1) < 0.02
    assert abs(WeightInit.kaiming(400, 25).std() - 0.2) < 0.004
    with pytest.raises(ValueError, match="set_size"):
        PositionWeights(features=1, n_pieces=None, set_size=None, init=WeightInit.ones)


# Matching


def cheapest(cost: Tensor) -> list[int]:
    """The matching by trying all permutations."""
    permutations = itertools.permutations(range(len(cost)))
    return list(min(permutations, key=lambda p: sum(cost[i, j].item() for i, j in enumerate(p))))


@given(seeds, st.integers(1, 5), st.sampled_from([torch.float32, torch.float64]))
def test_assignment_is_the_cheapest_permutation(seed: int, n: int, dtype: torch.dtype) -> None:
    cost = normal(seed, 2, 2, n, n).to(dtype)
    found = assignment(cost)
    assert found.dtype == torch.int64
    for row, matrix in zip(found.flatten(0, 1), cost.flatten(0, 1), strict=True):
        assert row.tolist() == cheapest(matrix)
        assert torch.equal(row, assignment(matrix))


def test_assignment_worked_by_hand() -> None:
    # The greedy choice (row 0 takes column 0) would cost 1 + 8 + 9 = 18; the best is 2 + 4 + 3.
    cost = torch.tensor([[1.0, 2.0, 9.0], [4.0, 8.0, 9.0], [5.0, 7.0, 3.0]])
    assert assignment(cost).tolist() == [1, 0, 2]
    assert assignment(cost.T).tolist() == [1, 0, 2]
    assert assignment(cost.half()).tolist() == [1, 0, 2]
    assert assignment(cost.bfloat16()).tolist() == [1, 0, 2]


def test_assignment_needs_double_precision_to_break_near_ties() -> None:
    cost = torch.tensor([[1.0, 1.0 + 1e-12], [1.0, 1.0]])
    assert assignment(cost).tolist() == [0, 1]
    assert assignment(cost.flip(-1)).tolist() == [1, 0]


def test_assignment_of_no_sets() -> None:
    assert assignment(torch.zeros(0, 3, 3)).shape == (0, 3)


@pytest.mark.parametrize("bad", [torch.nan, torch.inf, -torch.inf])
def test_assignment_names_the_matrix_that_is_not_finite(bad: float) -> None:
    cost = torch.zeros(2, 3, 2, 2)
    cost[1, 1, 0, 1] = bad
    with pytest.raises(NonFiniteError, match=r"cost matrix 4 of 6 \(shape \(2, 3, 2, 2\)\)"):
        assignment(cost)


@pytest.mark.parametrize("axis", [0, 1, 3])
def test_assignment_under_vmap_is_a_loop(axis: int) -> None:
    cost = torch.randn(4, 4, 4, 4)
    mapped = torch.func.vmap(assignment, in_dims=axis)(cost)
    assert torch.equal(mapped, torch.stack([assignment(c) for c in cost.unbind(axis)]))
    nested = torch.func.vmap(torch.func.vmap(assignment))(cost)
    assert torch.equal(nested, assignment(cost))


def test_assignment_keeps_the_contract_of_operators() -> None:
    torch.library.opcheck(torch.ops.setexp.assignment.default, (torch.rand(2, 3, 3).mT,))


@pytest.mark.parametrize(("n", "used"), [(63, False), (64, True)])
def test_large_matchings_take_the_fast_solver(
    n: int, used: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = []

    def lapjvr_batch(costs: np.ndarray, return_cost: bool) -> tuple[list, list, list]:
        calls.append(costs.shape)
        assert return_cost
        rows = np.arange(n)[::-1]  # pairs come in any order
        return [0.0] * len(costs), [rows] * len(costs), [(rows + 1) % n] * len(costs)

    monkeypatch.setitem(sys.modules, "lap", SimpleNamespace(lapjvr_batch=lapjvr_batch))
    cost = torch.rand(2, n, n)
    cost[:, torch.arange(n), (torch.arange(n) + 1) % n] = -1  # what the solver above answers
    assert torch.equal(assignment(cost), ((torch.arange(n) + 1) % n).expand(2, n))
    assert calls == [(2, n, n)] * used


def test_both_solvers_agree() -> None:
    pytest.importorskip("lap", reason="the faster solver is not installed")
    cost = torch.rand(3, 70, 70)
    from scipy.optimize import linear_sum_assignment

    for matrix, columns in zip(cost, assignment_module._solve(cost.numpy()), strict=True):
        assert columns.tolist() == linear_sum_assignment(matrix)[1].tolist()


# Costs


def definition(a: Tensor, b: Tensor, cost: Cost) -> Tensor:
    """Cost of two elements (D,)."""
    if cost is Cost.squared:
        return ((a - b) ** 2).sum() / len(a)
    if cost is Cost.huber:
        d = (a - b).abs()
        return torch.where(d < 1, d * d / 2, d - 0.5).sum() / len(a)
    if cost is Cost.l2:
        return ((a - b) ** 2).sum().sqrt()
    return -(b * (a.exp() / a.exp().sum()).log()).sum()


@pytest.mark.parametrize("cost", Cost)
def test_costs_follow_their_definition(cost: Cost) -> None:
    x, y = 2 * torch.randn(2, 3, 4, 5), 2 * torch.randn(3, 6, 5)
    pairs = pair_cost(x, y, cost)
    assert pairs.shape == (2, 3, 4, 6)
    for t, b, i, j in itertools.product(range(2), range(3), range(4), range(6)):
        assert_close(pairs[t, b, i, j], definition(x[t, b, i], y[b, j], cost))
    matched = matched_cost(x, y[:, :4], cost)
    assert_close(matched, pairs.diagonal(dim1=-2, dim2=-1))


def test_euclidean_distance_has_a_gradient_at_zero() -> None:
    x = torch.ones(1, 2, requires_grad=True)
    matched_cost(x, torch.ones(1, 2), Cost.l2).sum().backward()
    assert x.grad is not None
    assert x.grad.tolist() == [[0, 0]]


# Pairs and layers


@given(seeds, sizes, st.integers(1, 3))
def test_pairs_are_a_linear_map_of_the_concatenation(seed: int, n: int, d: int) -> None:
    x = normal(seed, 2, n, d)
    linear = nn.Linear(2 * d, 4)
    first, second = linear.weight.chunk(2, dim=-1)
    pairs = add_pairs(x @ first.mT + linear.bias, x @ second.mT)
    rows = [torch.cat([x[:, i], x[:, j]], -1) for i in range(n) for j in range(n)]
    assert_close(pairs, linear(torch.stack(rows, 1)))


def test_pairs_are_present_where_both_elements_are() -> None:
    assert pair_mask(torch.tensor([[1, 0, 1]])).tolist() == [[1, 0, 1, 0, 0, 0, 1, 0, 1]]


@pytest.mark.parametrize("held", [None, 1, 2 * 4 * 5 * 6 * 3, 10**6])
def test_distances_are_the_same_however_few_sets_are_taken_at_a_time(held: int | None) -> None:
    first, second = torch.randn(3, 2, 4, 6, requires_grad=True), torch.randn(3, 2, 5, 6)
    expected = (first.unsqueeze(-2) - second.unsqueeze(-3)).abs().sum(-1)
    (gradient,) = torch.autograd.grad(expected.square().sum(), first)
    found = l1_distances(first, second, held)
    assert_close(found, expected)
    assert_close(torch.autograd.grad(found.square().sum(), first)[0], gradient)


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize(("wide", "narrow"), [(3, 4), (1, 4), (3, 1), (1, 1)])
@pytest.mark.parametrize("shape", [(), (2,), (2, 3), (0, 3)])
def test_linear_is_pytorchs(shape: tuple[int, ...], wide: int, narrow: int, bias: bool) -> None:
    layer, x = Linear(wide, narrow, bias=bias), torch.randn(*shape, wide)
    if bias:
        nn.init.normal_(layer.bias)
    assert_close(layer(x), F.linear(x, layer.weight, layer.bias))


def test_layers_start_xavier_uniform_with_zero_biases() -> None:
    mlp = MLP([300, 200, 100])
    assert [type(layer).__name__ for layer in mlp] == ["Linear", "ReLU", "Linear"]
    for layer, bound in ((mlp[0], (6 / 500) ** 0.5), (mlp[2], (6 / 300) ** 0.5)):
        assert 0.99 * bound < layer.weight.abs().max() <= bound
        assert not layer.bias.any()
    assert len(MLP([3])) == len(MLP([])) == 0


def test_layers_start_as_pytorchs_where_asked() -> None:
    torch.manual_seed(0)
    mlp = MLP([30, 20, 10], init=LinearInit.pytorch)
    torch.manual_seed(0)
    for layer, expected in ((mlp[0], nn.Linear(30, 20)), (mlp[2], nn.Linear(20, 10))):
        assert torch.equal(layer.weight, expected.weight)
        assert torch.equal(layer.bias, expected.bias)
        bound = layer.in_features**-0.5
        assert 0.8 * bound < layer.bias.abs().max() <= bound
    assert Linear(3, 2, bias=False, init=LinearInit.pytorch).bias is None


def both_lstms() -> tuple[LSTM, nn.LSTM]:
    ours, theirs = LSTM(3, 4), nn.LSTM(3, 4, batch_first=True)
    nn.init.normal_(ours.from_input.bias)
    nn.init.normal_(ours.from_hidden.bias)
    theirs.load_state_dict(
        {
            "weight_ih_l0": ours.from_input.weight,
            "weight_hh_l0": ours.from_hidden.weight,
            "bias_ih_l0": ours.from_input.bias,
            "bias_hh_l0": ours.from_hidden.bias,
        }
    )
    return ours, theirs


def test_lstm_is_pytorchs() -> None:
    ours, theirs = both_lstms()
    x, hidden, cell = torch.randn(2, 5, 3), torch.randn(2, 4), torch.randn(2, 4)
    expected, _ = theirs(x, (hidden.unsqueeze(0), cell.unsqueeze(0)))
    assert_close(ours(x, hidden, cell), expected)


def test_the_last_cell_is_that_after_the_last_element_that_is_there() -> None:
    ours, theirs = both_lstms()
    x, mask = torch.randn(4, 5, 3), torch.zeros(4, 5)
    for row, there in enumerate(([0, 1, 2, 3, 4], [0, 1], [1, 3, 4], [])):
        mask[row, there] = 1
        expected = theirs(x[row : row + 1, there])[1][1][0] if there else torch.zeros(1, 4)
        found = ours.last_cell(x[row : row + 1], mask[row : row + 1])
        assert_close(found, expected)
    assert ours.last_cell(x, mask).shape == (4, 4)


def test_each_gate_of_the_lstm_is_xavier_uniform() -> None:
    lstm = LSTM(200, 100)
    for layer, bound in ((lstm.from_input, (6 / 300) ** 0.5), (lstm.from_hidden, 0.03**0.5)):
        assert 0.99 * bound < layer.weight.abs().max() <= bound
        assert not layer.bias.any()
