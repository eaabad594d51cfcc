"""`python -m framegate` is `edge`."""

from __future__ import annotations

import sys

from framegate.cli.main import main

if __name__ == "__main__":
    sys.exit(main())
