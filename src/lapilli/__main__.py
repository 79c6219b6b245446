"""`python -m lapilli` is the command line."""

import sys

from lapilli.faces.cli import main

sys.exit(main())
