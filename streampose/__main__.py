"""`python -m streampose`."""

import sys

from streampose.cli.main import main

sys.exit(main())
