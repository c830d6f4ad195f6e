"""Print the description of the API: ``python -m colorization.api.openapi``."""

from __future__ import annotations

import json
import sys
import tempfile

from colorization.api.app import create_app
from colorization.api.settings import load


def main() -> None:
    """Print the description."""
    with tempfile.TemporaryDirectory() as folder:
        app = create_app(load(output_dir=folder))
        json.dump(app.spec, sys.stdout, indent=2)
        app.extensions["colorization"].close()


if __name__ == "__main__":
    main()
