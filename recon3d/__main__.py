"""``python -m recon3d``: the command, where it is not on the path."""

import sys

from recon3d.cli.main import main

if __name__ == "__main__":
    sys.exit(main())
