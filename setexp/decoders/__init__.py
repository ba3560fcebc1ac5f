"""Networks that turn an `Encoding` into a set, or into scores of classes; and parts of these.

Beside the encoding, decoders of sets are given what iterative ones read: `encode`, the encoder of
an auto-encoder, and `steps`, the number of inner steps. The others take these as `**_`.
"""
