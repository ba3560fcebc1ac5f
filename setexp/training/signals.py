"""SIGTERM, SIGUSR1, SIGUSR2 and Ctrl-C ask a run to save and stop; the step in progress ends."""

from __future__ import annotations

import os
import signal
from types import FrameType
from typing import Any

SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1, signal.SIGUSR2)


class StopRequest:
    """Remembers the first signal while the context is open, until it is handed over.

    The first counts: Slurm's warning, SIGUSR2, requeues the job; SIGTERM at the time limit, which
    may come before the step has ended, does not.

    A launcher's own handler is kept and called by `hand_over`, after the checkpoint. Processes
    forked meanwhile inherit the handler and must ignore it.
    """

    def __enter__(self) -> StopRequest:
        self.event: tuple[int, FrameType | None] | None = None
        self._pid = os.getpid()
        self._previous: dict[int, Any] = {}
        for number in SIGNALS:
            if signal.getsignal(number) is signal.SIG_IGN:
                continue  # a shell's background job is not what its Ctrl-C is meant for
            self._previous[number] = signal.signal(number, self._remember)
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)

    def _remember(self, number: int, frame: FrameType | None) -> None:
        if os.getpid() != self._pid:
            return
        if self.event is None:
            self.event = (number, frame)
        elif number == signal.SIGINT:
            raise KeyboardInterrupt  # a second Ctrl-C does not wait for the step

    def hand_over(self) -> None:
        """Call the handler that was there before, or exit with the signal's conventional code.

        Submitit's handler of SIGUSR2 requeues the job and exits. Its handler of SIGTERM returns,
        and the run goes on: Slurm, preempting with SIGTERM, requeues the job that it has to kill,
        but not one that ends by itself.
        """
        assert self.event is not None
        (number, frame), self.event = self.event, None
        previous = self._previous[number]
        if not callable(previous) or previous is signal.default_int_handler:
            raise SystemExit(128 + number)
        previous(number, frame)
