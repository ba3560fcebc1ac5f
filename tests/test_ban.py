"""BAN, and what reads the proposals in order: formulas, padding, order, sizes, refusals."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from smoke_runs import complaint, config
from torch import Tensor, nn
from torch.nn import functional as F
from torch.testing import assert_close

from setexp.build import build
from setexp.encoders.permutation import OrderingCost, PermutationOptimisation
from setexp.encoders.question_states import QuestionStates
from setexp.encoders.read_in_order import ReadInOrder
from setexp.losses.agreement import AgreementLoss
from setexp.ops.bilinear import BilinearAttention, BilinearPooling
from setexp.ops.layers import MLP
from setexp.ops.weight_norm import WeightNormLinear
from setexp.sets import Batch, SetBatch
from setexp.training.optimise import learning_rate

MODELS = ("ban", "ban_lstm", "ban_po_u")
FEATURES, WORDS, ANSWERS = 6, 14, 32


@pytest.fixture(autouse=True)
def _float64(float64: None) -> None:
    del float64


@cache
def node(experiment: str, *overrides: str) -> Any:
    return config(f"experiment={experiment}", "scale=smoke", *overrides)["task"]


def model(experiment: str, *overrides: str) -> Any:
    return build(node(experiment, *overrides), "task")


def batch(counts: list[int], n: int) -> Batch:
    """Random proposals, so many of n in each set, and questions of 2 to 5 words."""
    size = len(counts)
    corner = torch.rand(size, n, 2) / 2
    x = torch.cat([torch.rand(size, n, FEATURES), corner, corner + 0.3], -1)
    mask = (torch.arange(n) < torch.tensor(counts).unsqueeze(1)).double()
    length = torch.arange(size) % 4 + 2
    word = torch.randint(1, 64, (size, WORDS)) * (torch.arange(WORDS) < length.unsqueeze(1))
    none = torch.zeros(size, dtype=torch.int64)
    aux = dict.fromkeys(("question_id", "kind", "counting"), none)
    aux |= {"word": word, "length": length, "partner": none.unsqueeze(1)}
    target = torch.rand(size, ANSWERS)
    return Batch(SetBatch(x * mask.unsqueeze(-1), mask), target / target.sum(1, True), aux)


def logits(task: Any, given: Batch) -> Tensor:
    return task.decoder(task.encoder(given.input, given.aux["word"], given.aux["length"]))


def reader(permute: bool = True) -> ReadInOrder:
    cost = OrderingCost(features=8, hidden=7, axes=1)
    order = PermutationOptimisation(
        elements=MLP([8]), cost=cost, initial=None, shape=[5], steps=3, rounds=3, masked=True
    )  # fmt: skip
    return ReadInOrder(features=FEATURES, projected=3, width=4, permute=order if permute else None)


# Parts


def test_a_weight_is_a_length_times_a_direction() -> None:
    torch.manual_seed(1)
    ours = WeightNormLinear(5, 3)
    torch.manual_seed(1)
    plain = nn.Linear(5, 3)
    x = torch.randn(4, 5)
    assert_close(ours(x), plain(x))  # it begins as PyTorch's
    theirs = nn.utils.parametrizations.weight_norm(plain, dim=None)
    for layer in (ours, theirs):
        layer(x).square().sum().backward()
    inner: Any = theirs.parametrizations
    assert ours.length.grad is not None
    assert_close(ours.length.grad, inner.weight.original0.grad.sum())
    assert_close(ours.weight.grad, inner.weight.original1.grad)
    with torch.no_grad():
        ours.weight *= 3
    assert_close(ours(x), plain(x))


def test_attention_and_pooling_are_bilinear_forms() -> None:
    x, words, mask = torch.randn(2, 5, 3), torch.randn(2, 4, 6), torch.ones(2, 5)
    mask[1, 3:] = 0
    attention = BilinearAttention(
        first=3, second=6, width=9, glimpses=2, dropout=0.2, inner_dropout=0.5
    ).eval()
    assert 0.5 < attention.glimpses.weight.std() < 1.5 and attention.glimpses.bias.any()
    forms = attention.glimpses
    seen, asked = attention.first(x).relu(), attention.second(words).relu()
    wanted = torch.einsum("gk,bnk,blk->bgnl", forms.normed(), seen, asked)
    wanted = wanted + forms.bias.view(1, 2, 1, 1)
    found = attention(x, words, mask)
    assert_close(found[0], wanted[0])
    assert_close(found[1, :, :3], wanted[1, :, :3])
    assert (found[1, :, 3:] == -torch.inf).all()

    pooling = BilinearPooling(first=3, second=6, width=7, dropout=0.2).eval()
    weights = torch.rand(2, 5, 4)
    seen, asked = pooling.first(x).relu(), pooling.second(words).relu()
    assert_close(pooling(x, words, weights), torch.einsum("bnd,bnl,bld->bd", seen, weights, asked))


@pytest.mark.parametrize("permute", [False, True])
def test_proposals_are_read_as_the_appendix_says(permute: bool) -> None:
    """Boxes by the largest coordinate; compared as they are; weighted before they are permuted."""
    read = reader(permute)
    x, box, logit = torch.randn(2, 5, FEATURES), torch.rand(2, 5, 4), torch.randn(2, 3, 5)
    found = read(x, box, logit, torch.ones(2, 5))
    for b in range(2):
        for g in range(3):
            rows = torch.cat([box[b] / box[b].max(), read.project(x[b]), logit[b, g, :, None]], -1)
            sequence = rows * logit[b, g, :, None].sigmoid()
            if read.permute is not None:
                assignment = read.permute(SetBatch(rows.unsqueeze(0), torch.ones(1, 5)))[0]
                sequence = assignment.T @ sequence
            expected = read.lstm.last_cell(sequence.unsqueeze(0), torch.ones(1, 5))[0]
            assert_close(found[b, g], expected)


def test_the_loss_is_the_sum_over_answers() -> None:
    scores, votes = torch.randn(2, 4), torch.tensor([[0, 1, 3, 6], [10, 0, 0, 0]])
    target = torch.tensor([[0, 0.3, 0.9, 1], [1, 0, 0, 0]])
    wanted = F.binary_cross_entropy(scores.sigmoid(), target, reduction="none").sum(1)
    assert_close(AgreementLoss()(scores, votes / 10), wanted)


def test_word_vectors_are_first_rows(tmp_path: Path) -> None:
    path, rows = tmp_path / "vectors.npy", np.random.default_rng(0).random((5, 4))
    np.save(path, rows)
    how: dict[str, Any] = {"embedding": 4, "hidden": 3, "vectors": str(path)}
    states = QuestionStates(words=9, **how)
    assert_close(states.embedding.weight[:5].detach(), torch.from_numpy(rows))
    assert states.embedding.weight.requires_grad
    word = torch.tensor([[1, 2, 0, 0]])
    assert states(word).shape == (1, 4, 3)
    assert_close(states(word)[:, :2], states(word[:, :2]))
    with torch.device("meta"):  # as models are checked before they are trained
        assert QuestionStates(words=9, **how).embedding.weight.is_meta
    with pytest.raises(
        ValueError, match=r"vectors.npy: its shape is \(5, 4\); give at most words=4"
    ):
        QuestionStates(words=4, **how)
    with pytest.raises(ValueError, match="rows of embedding=5"):
        QuestionStates(words=9, **{**how, "embedding": 5})
    path.write_text("the 0.1 0.2")
    with pytest.raises(ValueError, match=r"missing or no array .* --vectors"):
        QuestionStates(words=9, **how)
    message = complaint("experiment=ban", "scale=smoke", f"encoder.question.vectors={path}.none")
    assert message.startswith("encoder.question.vectors=") and "--vectors" in message


# Models


@pytest.mark.parametrize("experiment", MODELS)
@given(st.lists(st.integers(1, 12), min_size=2, max_size=4), st.integers(0, 2**16))
def test_padding_changes_nothing(experiment: str, counts: list[int], seed: int) -> None:
    """Sets of unequal sizes, with more padding than they need, and alone without any."""
    torch.manual_seed(seed)
    task, given = model(experiment).eval(), batch(counts, 15)
    given.input.x.requires_grad_()
    together = logits(task, given)
    for row, count in enumerate(counts):
        own = SetBatch(*(t[row : row + 1, :count] for t in given.input))
        aux = {name: t[row : row + 1] for name, t in given.aux.items()}
        assert_close(logits(task, given._replace(input=own, aux=aux))[0], together[row])
    anything = given.input.x.detach() + 9 * (1 - given.input.mask).unsqueeze(-1)
    assert_close(logits(task, given._replace(input=SetBatch(anything, given.input.mask))), together)

    task(given).loss.mean().backward()
    gradients = {name: p.grad for name, p in task.named_parameters()}
    gradients["x"] = given.input.x.grad
    assert together.isfinite().all()
    for name, gradient in gradients.items():
        assert gradient is not None and gradient.isfinite().all(), name
    assert not gradients["x"][given.input.mask == 0].any()


@pytest.mark.parametrize("experiment", MODELS)
def test_the_order_of_proposals_matters_only_where_they_are_read_as_they_come(
    experiment: str,
) -> None:
    task, given = model(experiment).eval(), batch([12, 12, 12], 12)
    order = torch.randperm(12)
    shuffled = given._replace(input=SetBatch(given.input.x[:, order], given.input.mask))
    one, other = logits(task, given), logits(task, shuffled)
    if experiment == "ban_lstm":
        assert (one - other).abs().max() > 1e-6
    else:
        assert_close(one, other)


def test_the_glimpses_share_what_counts_and_reads() -> None:
    task = model("ban_po_u", "encoder.glimpses=5").eval()
    names = [name for name, _ in task.named_parameters()]
    assert len([n for n in names if n.endswith("permute.step_size")]) == 1
    assert len([n for n in names if n.endswith("count.weight")]) == 1
    assert len(task.encoder.glimpses) == 5
    given = batch([7, 12], 12)
    before = logits(task, given)
    for glimpse in task.encoder.glimpses:  # nothing is read, nothing counted
        for layer in glimpse.found:
            nn.init.constant_(layer.bias, -1e3)
    assert not torch.allclose(before, logits(task, given))
    without = model("ban", "encoder.glimpses=5").eval()
    missing = without.load_state_dict(task.state_dict(), strict=False).missing_keys
    assert missing == []
    assert_close(logits(task, given), logits(without, given))


def test_sizes_are_those_of_the_thesis() -> None:
    with torch.device("meta"):
        tasks: Any = {name: build(config(f"experiment={name}")["task"], "task") for name in MODELS}
    sizes = {name: sum(p.numel() for p in task.parameters()) for name, task in tasks.items()}
    encoder = tasks["ban"].encoder
    assert encoder.attention.first.weight.shape == (3840, 2048)
    assert encoder.attention.glimpses.weight.shape == (8, 3840)
    assert tasks["ban"].decoder.second.weight.shape == (3129, 2560)
    # 2048 to 8; an LSTM of 13 to 128, with two biases; a layer of 128 to 1280 for each glimpse
    order = 2049 * 8 + 4 * 128 * (13 + 128 + 2) + 8 * (129 * 1280 + 1)
    assert sizes["ban_lstm"] - sizes["ban"] == order
    # 26 to 128 to 1 without the last bias, and the size of a step
    assert sizes["ban_po_u"] - sizes["ban_lstm"] == 27 * 128 + 128 + 1


def test_the_learning_rate_is_bans() -> None:
    trainer: Any = type("Trainer", (), config("experiment=ban")["trainer"])
    rates = [learning_rate(trainer, epoch, 0) for epoch in range(13)]
    assert rates == pytest.approx(
        [0.5e-3, 1e-3, 1.5e-3, *[2e-3] * 7, 5e-4, 5e-4, 1.25e-4], rel=1e-12
    )


def test_an_order_of_padding_is_refused() -> None:
    message = complaint("experiment=ban_po_u", "scale=smoke", "encoder.order.permute.masked=false")
    assert message == (
        "encoder.order: permute.masked=false: sets of proposals are padded; set it to true"
    )


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["encoder.glimpses=0"], "encoder.glimpses=0: at least 1"),
        (["encoder.rank=0"], "encoder.rank=0: at least 1"),
        (
            ["decoder=people_answers"],
            "decoder.counts=0: give the numbers of what encoder.count yields",
        ),
    ],
)
def test_what_does_not_fit_is_refused(overrides: list[str], message: str) -> None:
    assert message in complaint("experiment=ban", "scale=smoke", *overrides)
