"""Networks from an `Encoding` to a set or to scores of classes; elements to pictures; distances.

Beside the encoding, decoders of sets are given what iterative ones read: `encode`, the encoder of
an auto-encoder, and `steps`, the number of inner steps. The others take these as `**_`.
"""
