"""Every experiment's steps on a device without kernels: what a GPU would refuse shows on a CPU."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from smoke_runs import EXPERIMENTS, ROOT

# A step of each experiment, and of what a table changes about one beyond numbers.
STEPS = [*EXPERIMENTS, "graphs_bio readout@encoder.readout=fspool"]


def failures(data_root: Path) -> dict[str, str]:
    """What failed, by experiment and by deliberate mistake; "" for nothing."""
    try:
        import torch.utils.backend_registration as registration
        from torch._subclasses.fake_tensor import FakeTensorMode
    except ImportError as error:
        pytest.skip(f"this PyTorch has no fake tensors where they were: {error}")
    if not hasattr(registration, "_setup_privateuseone_for_python_backend"):
        pytest.skip("this PyTorch registers no backends from Python")
    assert FakeTensorMode
    result = subprocess.run(
        [
            sys.executable,
            str(Path(__file__).with_name("fake_gpu_step.py")),
            str(data_root),
            *STEPS,
        ],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
    )
    assert result.returncode == 0, result.stderr
    return json.loads(result.stdout)


def test_every_experiments_steps_stay_on_the_device(data_root: Path) -> None:
    found = failures(data_root)
    assert {name: found[name] for name in STEPS if found[name]} == {}
    for mistake in ("misplaced_target", "misplaced_weights"):  # the same, made wrong on purpose
        assert "found at least two devices" in found[mistake]
