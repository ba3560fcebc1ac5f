"""What `check_clevr_renderer.py` measures, by subject."""
