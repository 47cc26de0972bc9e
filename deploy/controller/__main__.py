"""``python -m deploy.controller controller.json``"""

from __future__ import annotations

import sys

from deploy.controller.run import main

if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
