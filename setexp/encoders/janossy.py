"""Janossy pooling with one order of the elements (Murphy et al., 2019; Thesis, 5.6.4)."""

from __future__ import annotations

from torch import Tensor, nn

from setexp.ops.layers import FastLSTM


class JanossyPool(nn.Module):
    """An LSTM reads the elements in the order they come; its last cell state is the pooled vector.

    A data set that shuffles its elements makes this pi-SGD: one random order is one sample of the
    average over all orders. Padded rows are read as well, as the released code does.

    Args:
        features: C. hidden: width of the LSTM, H.

    Shapes: features (B, N, C) and mask (B, N) to (B, H) and None.
    """

    def __init__(self, *, features: int, hidden: int) -> None:
        super().__init__()
        self.lstm = FastLSTM(features, hidden, batch_first=True)

    def forward(self, x: Tensor, mask: Tensor) -> tuple[Tensor, None]:
        del mask
        return self.lstm(x)[1][1].squeeze(0), None
