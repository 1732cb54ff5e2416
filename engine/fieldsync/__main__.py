"""`python -m fieldsync` is the command line."""

from fieldsync.cli import main

main()
