"""Encoders of sets with a question, Janossy pooling and the classifier of answers."""

from __future__ import annotations

import pytest
import torch
from smoke_runs import config
from torch import Tensor, nn

from setexp.build import build
from setexp.decoders.dropout_classifier import DropoutClassifier
from setexp.encoders.fspool import FSPool
from setexp.encoders.janossy import JanossyPool
from setexp.encoders.pooling import MaxPool, MeanPool, SumPool
from setexp.encoders.question import (
    QuestionedElements,
    QuestionedPairs,
    QuestionedSet,
    QuestionLSTM,
)
from setexp.ops.layers import LinearInit
from setexp.sets import Encoding, SetBatch
from setexp.training.optimise import learning_rate
from setexp.training.settings import Trainer

B, N, D, Q = 3, 4, 7, 5
WIDTHS = [D, 6, 8]


@pytest.fixture(autouse=True)
def _float64(float64: None) -> None:
    del float64


def inputs() -> tuple[Tensor, Tensor, Tensor]:
    mask = torch.ones(B, N)
    mask[0, 2:] = 0
    return torch.randn(B, N, D), mask, torch.randn(B, Q)


def after_first_relu(module: QuestionedElements | QuestionedPairs) -> nn.Sequential:
    assert isinstance(module.rest, nn.Sequential)
    return module.rest[1:]


def test_elements_are_told_the_question_by_concatenation() -> None:
    x, mask, question = inputs()
    elements = QuestionedElements(question=Q, widths=WIDTHS, init=LinearInit.pytorch)
    out, kept = elements(x, mask, question)
    told = torch.cat([x, question.unsqueeze(1).expand(B, N, Q)], dim=-1)
    hidden = torch.relu(
        torch.nn.functional.linear(told, elements.first.weight, elements.first.bias)
    )
    torch.testing.assert_close(out, after_first_relu(elements)(hidden))
    assert kept is mask and (out >= 0).all()  # a ReLU comes last


def test_pairs_are_told_the_question_by_concatenation() -> None:
    x, mask, question = inputs()
    pairs = QuestionedPairs(question=Q, widths=WIDTHS, init=LinearInit.pytorch)
    out, kept = pairs(x, mask, question)
    both = (
        [x[:, i] for i in range(N) for _ in range(N)],
        [x[:, j] for _ in range(N) for j in range(N)],
    )
    told = torch.cat(
        [
            torch.stack(both[0], 1),
            torch.stack(both[1], 1),
            question.unsqueeze(1).expand(B, N * N, Q),
        ],
        dim=-1,
    )
    hidden = torch.relu(torch.nn.functional.linear(told, pairs.first.weight, pairs.first.bias))
    torch.testing.assert_close(out, after_first_relu(pairs)(hidden))
    assert kept[0].tolist() == [1, 1, 0, 0, 1, 1] + [0] * 10


def test_the_last_hidden_state_is_the_question() -> None:
    lstm = QuestionLSTM(words=9, embedding=3, hidden=Q)
    words = torch.randint(0, 9, (B, 6))
    torch.testing.assert_close(lstm(words), lstm.lstm(lstm.embedding(words))[0][:, -1])


def test_janossy_pools_to_the_last_cell_state_of_the_order_given() -> None:
    pool, x = JanossyPool(features=D, hidden=Q), torch.randn(B, N, D)
    mask = torch.ones(B, N)
    cell = torch.nn.LSTMCell(D, Q)
    cell.load_state_dict({k.removesuffix("_l0"): v for k, v in pool.lstm.state_dict().items()})
    state = torch.zeros(B, Q), torch.zeros(B, Q)
    for element in x.unbind(1):
        state = cell(element, state)
    torch.testing.assert_close(pool(x, mask)[0], state[1])
    assert not torch.allclose(pool(x.flip(1), mask)[0], state[1])


def test_the_order_does_not_matter_but_the_question_does() -> None:
    encoder = QuestionedSet(
        question=QuestionLSTM(words=9, embedding=3, hidden=Q),
        elements=QuestionedElements(question=Q, widths=WIDTHS, init=LinearInit.pytorch),
        pooling=SumPool(masked=True),
        scale=12.0,
    )
    x, mask, _ = inputs()
    words = torch.randint(0, 9, (B, 6))
    z = encoder(SetBatch(x, mask), words).z
    order = torch.randperm(N)
    torch.testing.assert_close(encoder(SetBatch(x[:, order], mask[:, order]), words).z, z)
    assert not torch.allclose(encoder(SetBatch(x, mask), (words + 1) % 9).z, z)
    encoder.scale = 1.0
    torch.testing.assert_close(12 * encoder(SetBatch(x, mask), words).z, z)


def test_answers_are_scored_with_dropout_in_training_alone() -> None:
    decoder = DropoutClassifier(
        latent=D, hidden=[6, 8], classes=4, dropout=0.5, init=LinearInit.pytorch
    )
    encoding = Encoding(z=torch.randn(B, D))
    scores = decoder.eval()(encoding)
    assert scores.shape == (B, 4) and torch.equal(scores, decoder(encoding))
    assert not torch.allclose(decoder.train()(encoding), scores)
    with pytest.raises(ValueError, match=r"dropout=1.0: a share in \[0, 1\)"):
        DropoutClassifier(latent=D, hidden=[6], classes=4, dropout=1.0, init=LinearInit.pytorch)


# Table 5.9 as configured.


@pytest.mark.parametrize(
    ("row", "first", "pooling", "scale"),
    [
        ("fspool", 7 + 256, FSPool, 12),
        ("rn", 14 + 256, SumPool, 1),
        ("janossy", 7 + 256, JanossyPool, 1),
        ("sum", 7 + 256, SumPool, 12),
        ("mean", 7 + 256, MeanPool, 12),
        ("max", 7 + 256, MaxPool, 12),
    ],
)
def test_poolings_and_widths_are_the_protocols(
    row: str, first: int, pooling: type, scale: int
) -> None:
    with torch.device("meta"):
        task = build(config(f"experiment=clevr_questions_{row}")["task"], "task")
    encoder = task.get_submodule("encoder")
    assert type(encoder.pooling) is pooling
    assert encoder.scale == scale
    assert getattr(encoder.pooling, "masked", False) == (row == "fspool")
    assert getattr(encoder.pooling, "by_set_size", False) == (row == "mean")
    shapes = {name: tuple(p.shape) for name, p in task.named_parameters()}
    assert shapes["encoder.question.embedding.weight"] == (83, 32)
    assert shapes["encoder.question.lstm.weight_hh_l0"] == (1024, 256)
    assert shapes["encoder.elements.first.weight"] == (512, first)
    assert shapes["decoder.scores.weight"] == (28, 1024)
    layers = [n for n in shapes if n.startswith("encoder.elements.rest") and n.endswith("weight")]
    assert [shapes[n] for n in layers] == [(512, 512)] * 3
    if row == "fspool":
        assert shapes["encoder.pooling.weights.weight"] == (512, 21)


def test_the_learning_rate_is_the_codes_or_the_papers() -> None:
    def rates(*overrides: str) -> list[float]:
        nodes = config("experiment=clevr_questions_fspool", *overrides)["trainer"]
        trainer = Trainer(**nodes)
        return [learning_rate(trainer, epoch - 1, 0) for epoch in (1, 18, 19, 99, 118, 119, 350)]

    code = [1e-5, 1e-5, 2e-5, 3.2e-4, 3.2e-4, 6.4e-4, 6.4e-4]
    assert rates() == pytest.approx(code)
    assert rates("trainer=doubling_paper")[:3] == pytest.approx([5e-6] * 3)
    assert rates("trainer=doubling_paper")[-1] == pytest.approx(5e-4)
