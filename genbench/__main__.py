"""`python -m genbench`."""

from genbench.cli import main

main(prog_name="genbench")
