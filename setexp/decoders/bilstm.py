"""Bidirectional LSTM over the elements in the order they come (iDSPN, F.1)."""

from __future__ import annotations

from torch import nn

from setexp.ops.layers import FastLSTM
from setexp.sets import Encoding, SetBatch


class BiLSTM(nn.Module):
    """A linear map of each element, two bidirectional LSTM layers, a linear map.

    The LSTM is PyTorch's: fast, but seeds cannot be stacked, nor is it compiled as one graph.

    Args:
        inputs: features of an element. hidden: width of the LSTM and of what it reads.
        element_dim: features of a predicted element.

    Shapes: encoded elements (B, N, inputs) to x (1, B, N, element_dim), mask (1, B, N).
    """

    def __init__(self, *, inputs: int, hidden: int, element_dim: int) -> None:
        super().__init__()
        self.inputs = nn.Linear(inputs, hidden)
        self.lstm = FastLSTM(hidden, hidden, num_layers=2, bidirectional=True, batch_first=True)
        self.outputs = nn.Linear(2 * hidden, element_dim)

    def forward(self, encoding: Encoding, **_: object) -> SetBatch:
        x, mask = encoding.required_elements()
        x = self.outputs(self.lstm(self.inputs(x))[0])
        return SetBatch(x.unsqueeze(0), mask.unsqueeze(0))
