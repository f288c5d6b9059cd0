"""`python -m supervisor`: the command line, where `supervise` is not on the PATH."""

from supervisor.cli.main import main

main()
