"""Pure functions on tensors: sorting, matching, pairs, distances."""
