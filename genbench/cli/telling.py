"""The console of commands that work for hours. No torch."""

from __future__ import annotations

import os
import sys

from rich.console import Console


class BrokenPipeConsole(Console):
    """A console that falls silent where its reader is gone (`| head`, a `tee` that was killed): the work goes on.

    rich would leave by `SystemExit` from within a step, which counts as that run's failure. Results are files, and
    `genbench report` prints them again.
    """

    def on_broken_pipe(self) -> None:
        """Print nowhere from now on."""
        self.quiet = True
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, sys.stdout.fileno())
        os.close(nowhere)
