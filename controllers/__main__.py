from __future__ import annotations

import sys

from controllers.main import main

sys.exit(main(sys.argv[1:]))
