"""Milliseconds per optimiser step and peak memory, beside a straightforward reference.

    python benchmarks/bench.py [--case NAME ...] [--compile] [--device auto] [--write PATH.json]

Contenders of a case take turns, so that a busy machine slows them alike; medians are printed. Data
is included, seeds that are stacked share the time. Exit code 1 if a bar is missed.
"""

from __future__ import annotations

import argparse
import ctypes
import gc
import statistics
import sys
import time
from pathlib import Path
from typing import Any

import torch
from cases import CASES
from contenders import Case, Contender

from setexp.config import register
from setexp.files import write_json
from setexp.memory import keep_freed_memory
from setexp.ops.product import is_large, product
from setexp.provenance import provenance


def main() -> int:
    """Time the chosen cases; returns the exit code."""
    arguments = parse()
    keep_freed_memory()  # as every training process does
    device = torch.device(
        ("cuda" if torch.cuda.is_available() else "cpu")
        if arguments.device == "auto"
        else arguments.device
    )
    if arguments.threads:
        torch.set_num_threads(arguments.threads)
    register()
    started = time.monotonic()
    results: dict[str, Any] = {}
    for name in arguments.case or CASES:
        torch.manual_seed(0)
        case = CASES[name](device, arguments.compile)
        results[name] = measure(case, device, arguments.repeats, arguments.seconds)
        show(name, results[name])
        del case
        gc.collect()
    if arguments.write:
        about = provenance("python benchmarks/bench.py", device, time.monotonic() - started)
        write_json(arguments.write, {"provenance": about, "cases": results})
    judged = [
        c for r in results.values() for p in (r["growth"], r["contenders"]) for c in p.values()
    ]
    missed = any(c["met"] is False or c.get("memory_met") is False for c in judged)
    return int(missed)


def parse() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--case", action="append", choices=list(CASES), help="default: all")
    parser.add_argument(
        "--compile",
        action="store_true",
        help="also torch.compile, and judge that: polygons, classification, sorting, mosaics, "
        "numbering, graphs and their folds; and counting, not judged",
    )
    parser.add_argument("--device", default="auto", help="auto, cpu or cuda")
    parser.add_argument("--threads", type=int, help="of the CPU; default: PyTorch's")
    parser.add_argument("--repeats", type=int, default=15, help="most rounds of a case")
    parser.add_argument("--seconds", type=float, default=60.0, help="most time of a case")
    parser.add_argument("--write", type=Path, metavar="PATH.json", help="keep the figures")
    return parser.parse_args()


def measure(case: Case, device: torch.device, repeats: int, seconds: float) -> dict[str, Any]:
    """Medians of interleaved rounds; at least three rounds whatever the time."""
    memory = {c.name: peak_memory(c, device) for c in case.contenders}  # also warms up
    times: dict[str, list[float]] = {c.name: [] for c in case.contenders}
    products: list[float] = []
    until = time.monotonic() + seconds
    while len(products) < 3 or (len(products) < repeats and time.monotonic() < until):
        for c in case.contenders:
            times[c.name].append(timed(c, device))
        products.append(product_rate(case.product, device) if case.flops else 0.0)
    rate = statistics.median(products)
    first = case.contenders[0].name
    base = statistics.median(times[first])
    contenders = {}
    for c in case.contenders:
        ms = statistics.median(times[c.name])
        bar, smaller = case.bars.get(c.name), case.smaller.get(c.name)
        saved = ratio(memory[first], memory[c.name])
        contenders[c.name] = {
            "ms": ms,
            "fastest_ms": min(times[c.name]),
            "speedup": base / ms,
            "bar": bar,
            "met": None if bar is None else base / ms >= bar,
            "memory_mb": memory[c.name],
            "memory_ratio": saved,
            "memory_bar": smaller,
            "memory_met": None if smaller is None or saved is None else saved >= smaller,
            "share_of_product_rate": case.flops / (ms * 1e-3) / rate if case.flops else None,
        }
    return {
        "rounds": len(products),
        "product_gflops": rate / 1e9,
        "contenders": contenders,
        "growth": {name: grown(*parts, device) for name, parts in case.growth.items()},
    }


def ratio(reference: float | None, own: float | None) -> float | None:
    """How many times the reference's memory is a contender's, where both are known."""
    return None if reference is None or not own else reference / own


def grown(
    fewer: Contender, more: Contender, most: float | None, device: torch.device
) -> dict[str, Any]:
    """Peak memory with fewer and with more inner steps, and whether it grows by at most `most`."""
    few, many = peak_memory(fewer, device), peak_memory(more, device)
    growth = None if few is None or many is None else many / few - 1
    met = None if most is None or growth is None else growth < most
    return {"memory_mb": [few, many], "growth": growth, "bar": most, "met": met}


def timed(contender: Contender, device: torch.device) -> float:
    """Milliseconds per step and seed of one run."""
    gc.collect()
    synchronize(device)
    start = time.perf_counter()
    contender.run()
    synchronize(device)
    return (time.perf_counter() - start) * 1e3 / contender.steps / contender.seeds


def product_rate(shape: tuple[int, int, int], device: torch.device) -> float:
    """Floating-point operations per second of a float32 product of this shape, by the faster of
    the libraries that PyTorch comes with."""
    rows, inner, columns = shape
    a = torch.randn(1, rows, inner, device=device)
    b = torch.randn(1, columns, inner, device=device)
    ways = [lambda: torch.bmm(a, b.mT)]
    if is_large(a, b):
        ways.append(lambda: product(a, b))
    count, seconds = 10, []
    for way in ways:
        way()
        synchronize(device)
        start = time.perf_counter()
        for _ in range(count):
            way()
        synchronize(device)
        seconds.append(time.perf_counter() - start)
    return 2.0 * rows * inner * columns * count / min(seconds)


def synchronize(device: torch.device) -> None:
    """Wait for the device."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def peak_memory(contender: Contender, device: torch.device) -> float | None:
    """Growth of memory during a run beyond what was held before, in MB; None if unknown.

    On a CPU it is the resident set's: its peak is reset through Linux's /proc.
    """
    contender.run()  # optimiser state and compiled code exist from here on
    gc.collect()
    if not contender.here:
        return None
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
        before = torch.cuda.memory_allocated(device)
        contender.run()
        return (torch.cuda.max_memory_allocated(device) - before) / 1e6
    if not Path("/proc/self/clear_refs").exists():
        contender.run()
        return None
    ctypes.CDLL(None).malloc_trim(0)
    Path("/proc/self/clear_refs").write_text("5")
    before = resident("VmRSS")
    contender.run()
    return (resident("VmHWM") - before) / 1e6


def resident(key: str) -> int:
    """A line of /proc/self/status in bytes."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(f"{key}:"):
            return int(line.split()[1]) * 1024
    raise KeyError(key)


def show(name: str, result: dict[str, Any]) -> None:
    """Print a case's table."""
    rate = result["product_gflops"]
    products = f", products {rate:.0f} GFLOP/s" if rate else ""
    print(f"{name}: {result['rounds']} rounds{products}")
    for label, c in result["contenders"].items():
        bar = "" if c["bar"] is None else f" (bar {c['bar']:g}: {'met' if c['met'] else 'MISSED'})"
        memory = "     ? MB" if c["memory_mb"] is None else f"{c['memory_mb']:6.0f} MB"
        if c["memory_bar"] is not None and c["memory_ratio"] is not None:
            verdict = "met" if c["memory_met"] else "MISSED"
            memory += f" (1/{c['memory_ratio']:.1f}, bar 1/{c['memory_bar']:g}: {verdict})"
        share = c["share_of_product_rate"]
        share = "" if share is None else f"  {share:4.0%} of product rate"
        print(
            f"  {label:<34}{c['ms']:9.3f} ms  {memory}  {c['speedup']:5.2f}x{bar}{share}",
            flush=True,
        )
    for label, g in result["growth"].items():
        if g["growth"] is None:
            continue
        bar = (
            "" if g["bar"] is None else f" (bar {g['bar']:.0%}: {'met' if g['met'] else 'MISSED'})"
        )
        few, many = g["memory_mb"]
        print(f"  {label:<34}10 to 40 steps {few:6.0f} to {many:.0f} MB  {g['growth']:+.0%}{bar}")


if __name__ == "__main__":
    sys.exit(main())
