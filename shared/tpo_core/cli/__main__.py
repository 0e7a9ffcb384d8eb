"""Run the command as ``python -m tpo_core.cli``."""

import sys

from tpo_core.cli.main import main

sys.exit(main())
