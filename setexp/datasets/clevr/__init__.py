"""CLEVR: procedural scenes and pictures, the official release, and the sets both give."""
