"""The few layers everything is built from, written so that seeds stack exactly."""

from __future__ import annotations

from collections.abc import Sequence
from enum import Enum
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from setexp.ops.product import Product, is_faster


class LinearInit(Enum):
    """Initial weights and biases of a linear layer.

    xavier: Xavier uniform, biases zero (all of the authors' FSPool and DSPN models). pytorch:
    PyTorch's default, both uniform within 1 / sqrt(in_features) (iDSPN's code). identity: weights
    the identity, biases PyTorch's default (counting toy's code).
    """

    xavier = "xavier"
    pytorch = "pytorch"
    identity = "identity"


def project(x: Tensor, weight: Tensor) -> Tensor:
    """x W^T, rounded alike alone and in a stack of seeds.

    Products take other routes through the BLAS when they are batched, which changes the last bit.
    Here they always are, and a width of one, or a lone row, is a multiplication. On processors of
    AMD a batch of one still takes another route where a matrix's rows are longer than four and no
    multiple of it: on a CPU such widths are filled up with zeros.

    Shapes: (..., in) and (out, in), or (S, ..., in) and (S, out, in), to (..., out).
    """
    stacked = weight.unsqueeze(0) if weight.ndim == 2 else weight
    out_features, in_features = weight.shape[-2:]
    rows = x.reshape(len(stacked), -1, in_features)
    if in_features == 1:
        y = rows * stacked.mT
    elif out_features == 1:
        y = (rows * stacked).sum(-1, keepdim=True)
    elif rows.shape[1] == 1:
        y = (rows * stacked).sum(-1).unsqueeze(1)
    elif is_faster(rows, stacked):
        y = Product.apply(rows, stacked)
    else:
        on_cpu = x.device.type == "cpu"
        more = [-n % 4 if on_cpu and n > 4 else 0 for n in (in_features, out_features)]
        if any(more):
            rows, stacked = F.pad(rows, (0, more[0])), F.pad(stacked, (0, more[0], 0, more[1]))
        y = torch.bmm(rows, stacked.mT)[..., :out_features]
    return y.view(*x.shape[:-1], out_features)


class Linear(nn.Linear):
    """A linear layer that rounds alike alone and in a stack of seeds.

    `torch.nn.Linear` fuses the bias into the product when it runs alone but not under `vmap`, which
    changes the last bit. Here the bias is added afterwards; see `project` for the product. Weights
    may have a leading seed axis, as the input then does.

    Args:
        in_features, out_features, bias: as `torch.nn.Linear` defines them.
        init: see `LinearInit`.

    Shapes: (..., in_features) to (..., out_features). Where a stack of S seeds is given as it is,
    not mapped, parameters and input have a leading axis S.
    """

    def __init__(
        self,
        in_features: int,
        out_features: int,
        bias: bool = True,
        *,
        init: LinearInit = LinearInit.xavier,
    ) -> None:
        self.init = LinearInit(init)  # read by `reset_parameters`, which the base class calls
        super().__init__(in_features, out_features, bias)

    def reset_parameters(self) -> None:
        if self.init is not LinearInit.xavier:
            super().reset_parameters()
            if self.init is LinearInit.identity:
                nn.init.eye_(self.weight)
            return
        nn.init.xavier_uniform_(self.weight)
        if self.bias is not None:
            nn.init.zeros_(self.bias)

    def forward(self, x: Tensor) -> Tensor:
        y = project(x, self.weight)
        if self.bias is None:
            return y
        if self.bias.ndim == 1:
            return y + self.bias
        rows = y.reshape(len(self.bias), -1, self.out_features) + self.bias.unsqueeze(1)
        return rows.view(y.shape)


class MLP(nn.Sequential):
    """Linear layers of the given widths with ReLU between them, none after the last.

    Args:
        widths: input, hidden and output widths; at least two, or one for the identity.
        init: see `LinearInit`.

    Shapes: (..., widths[0]) to (..., widths[-1]).
    """

    def __init__(self, widths: Sequence[int], *, init: LinearInit = LinearInit.xavier) -> None:
        layers: list[nn.Module] = []
        for wide, narrow in pairwise(widths):
            layers += [Linear(wide, narrow, init=init), nn.ReLU()]
        super().__init__(*layers[:-1])


class LSTM(nn.Module):
    """One LSTM layer from two linear maps, because `torch.nn.LSTM` cannot be stacked by `vmap`.

    Gates in the order input, forget, cell, output; each gate's matrices are Xavier uniform, biases
    zero.

    Shapes: inputs (B, N, in_features), hidden and cell (B, hidden) to all hidden states
    (B, N, hidden).
    """

    def __init__(self, in_features: int, hidden: int) -> None:
        super().__init__()
        self.from_input = Linear(in_features, 4 * hidden)
        self.from_hidden = Linear(hidden, 4 * hidden)
        for layer in (self.from_input, self.from_hidden):
            for gate in layer.weight.chunk(4):
                nn.init.xavier_uniform_(gate)

    def forward(self, inputs: Tensor, hidden: Tensor, cell: Tensor) -> Tensor:
        outputs = []
        # the input's share of the gates is one product for all positions
        for gates in self.from_input(inputs).unbind(-2):
            hidden, cell = self._step(gates, hidden, cell)
            outputs.append(hidden)
        return torch.stack(outputs, dim=-2)

    def last_cell(self, inputs: Tensor, mask: Tensor) -> Tensor:
        """The cell after the last element that is there, from zeros; padding is passed over.

        Shapes: inputs (B, N, in_features) and mask (B, N) to (B, hidden).
        """
        gates = self.from_input(inputs)
        hidden = cell = gates.new_zeros(*gates.shape[:-2], gates.shape[-1] // 4)
        for share, present in zip(gates.unbind(-2), mask.unsqueeze(-1).unbind(-2), strict=True):
            read = self._step(share, hidden, cell)
            hidden, cell = (
                torch.where(present > 0, new, old)
                for new, old in zip(read, (hidden, cell), strict=True)
            )
        return cell

    def _step(self, gates: Tensor, hidden: Tensor, cell: Tensor) -> tuple[Tensor, Tensor]:
        i, f, g, o = (gates + self.from_hidden(hidden)).chunk(4, dim=-1)
        cell = torch.sigmoid(f) * cell + torch.sigmoid(i) * torch.tanh(g)
        return torch.sigmoid(o) * torch.tanh(cell), cell


class FastLSTM(nn.LSTM):
    """PyTorch's own: fast, but seeds cannot be stacked.

    Many CPUs have no LSTM in half precision, so there it stays in float32 under autocast.
    """

    def forward(self, x: Tensor) -> tuple[Tensor, tuple[Tensor, Tensor]]:  # type: ignore[override]
        if x.device.type != "cpu":
            return super().forward(x)
        with torch.autocast("cpu", enabled=False):
            return super().forward(x.to(next(self.parameters()).dtype))


class GRUCell(nn.Module):
    """One step of a GRU from two linear maps: `torch.nn.GRUCell` cannot be stacked by `vmap`, nor
    compiled for a GPU.

    Gates in the order reset, update, new; input weights are Xavier uniform, hidden ones orthogonal
    and biases zero, as Keras has them.

    Shapes: inputs (..., in_features), hidden (..., hidden) to the next hidden state (..., hidden).
    """

    def __init__(self, in_features: int, hidden: int) -> None:
        super().__init__()
        self.from_input = Linear(in_features, 3 * hidden)
        self.from_hidden = Linear(hidden, 3 * hidden)
        nn.init.orthogonal_(self.from_hidden.weight)

    def forward(self, inputs: Tensor, hidden: Tensor) -> Tensor:
        reset, update, new = self.from_input(inputs).chunk(3, dim=-1)
        reset_of, update_of, new_of = self.from_hidden(hidden).chunk(3, dim=-1)
        new = torch.tanh(new + torch.sigmoid(reset + reset_of) * new_of)
        keep = torch.sigmoid(update + update_of)
        return new + keep * (hidden - new)
