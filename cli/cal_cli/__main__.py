"""`python -m cal_cli` is `calctl`."""

from cal_cli.main import main

main()
