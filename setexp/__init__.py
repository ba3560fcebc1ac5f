"""Neural networks for sets: five documents' tables as config files."""

import os

# Intel's MKL splits a product among threads by the size of its batch, on processors of AMD even
# where PyTorch was told to use one, so that a seed would round otherwise alone than in a stack. It
# reads this at its first product; speed is the same.
os.environ.setdefault("MKL_CBWR", "AUTO,STRICT")
