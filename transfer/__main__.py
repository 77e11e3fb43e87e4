"""`python -m transfer`."""

from transfer.cli.main import main

main()
