"""`python -m transfer`."""

from transfer.cli.main import run

run()
