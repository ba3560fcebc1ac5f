"""The padded batch of sets that every other module speaks.

Letters used in every shape of this project: S seeds, T inner steps, B sets in a batch, N and M
elements of a set (its padded size), D features of an element, L latent size, C classes.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import Tensor

from setexp.errors import ConfigError

if TYPE_CHECKING:
    from setexp.ops.sorting import RelaxedOrder


class SetBatch(NamedTuple):
    """A batch of padded sets.

    Args:
        x: elements, (..., N, D). Padded rows of data hold zeros, or noise; a decoder may leave
            anything.
        mask: (..., N) of the same dtype: 1 where an element is present, 0 where it is padding.
            Only predictions hold fractions.
    """

    x: Tensor
    mask: Tensor

    def with_mask_channel(self) -> Tensor:
        """Elements with their mask as last feature, (..., N, D + 1) (Thesis, 6.3.2)."""
        return torch.cat([self.x, self.mask.unsqueeze(-1)], dim=-1)


def split_mask(rows: Tensor, mask_channel: bool, mask_bias: float = 0.0) -> SetBatch:
    """Rows whose last feature is the mask, plus a bias, as a set; without one, all are present.

    Shapes: rows (..., N, D + 1), or (..., N, D) without `mask_channel`, to x (..., N, D) and mask
    (..., N).
    """
    if not mask_channel:
        return SetBatch(rows, rows.new_ones(rows.shape[:-1]))
    return SetBatch(rows[..., :-1], rows[..., -1] + mask_bias if mask_bias else rows[..., -1])


class GraphBatch(NamedTuple):
    """A batch of undirected graphs: all nodes in one list, graph after graph, then padding.

    Args:
        x: features of nodes, (N, D); padding has zeros.
        graph: graph of each node in 0..B - 1, (N,) int64; B of padding.
        first: first node of each graph, and of the padding, (B + 1,) int64.
        neighbour: neighbours of all nodes, node after node, then padding, (E,) int64.
        edge: first of each node's places in `neighbour`, and of the padding, (N + 1,) int64.
    """

    x: Tensor
    graph: Tensor
    first: Tensor
    neighbour: Tensor
    edge: Tensor


class Batch(NamedTuple):
    """One step's data.

    Args:
        input: what the model sees: a `SetBatch`, images (B, 3, H, W) in [0, 1], pairs of them
            (B, 2, 3, H, W), or a `GraphBatch`.
        target: what it should produce: a `SetBatch`, labels or numbers (B,), or shares (B, C).
        aux: further tensors with leading B (noise, questions, ...), by name.
    """

    input: Any
    target: Any
    aux: dict[str, Tensor]


class Encoding(NamedTuple):
    """What an encoder hands to a decoder: a latent vector, and what the decoder may undo or see.

    Args:
        z: latent vectors, (B, L); L = 0 from encoders that hand over elements alone.
        order: the relaxed order of the pooled features where the pooling sorts softly; FSUnpool
            inverts it (Thesis, 5.4.3).
        elements: what was encoded, or what the decoder attends to, element by element; None where
            there is nothing but z.
    """

    z: Tensor
    order: RelaxedOrder | None = None
    elements: SetBatch | None = None

    def required_elements(self) -> SetBatch:
        """The elements, for a decoder that cannot do without.

        Raises:
            ConfigError: the encoder yields nothing but z.
        """
        if self.elements is None:
            raise ConfigError(
                "encoder: it yields a vector alone, and this decoder reads elements; use "
                "encoder=elements for sets, grouped_cnn or position_cnn for images"
            )
        return self.elements
