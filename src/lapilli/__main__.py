"""`python -m lapilli` is the command line."""

from lapilli.faces.cli import main

main()
