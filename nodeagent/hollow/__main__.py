"""``python -m nodeagent.hollow``."""

import sys

from nodeagent.hollow.main import main

sys.exit(main())
