"""`python -m genbench`."""

import os
import sys

# With -m the working directory stands first: its modules, and the entry points of a `*.dist-info` folder in it, would
# be loaded as if they were installed. The command `genbench` never looks there.
if not sys.flags.safe_path and sys.path and sys.path[0] in ("", os.getcwd()):  # noqa: PTH109
    del sys.path[0]

from genbench.cli.main import main

main(prog_name="genbench")
