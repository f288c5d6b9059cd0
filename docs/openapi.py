"""Writes docs/openapi.json: the daemon's API, for programs that are written against it.

    python -m docs.openapi

Owns that file. It is what a running daemon serves at /openapi.json.
"""

import json
import sys
from pathlib import Path
from typing import Any, cast

from supervisor.daemon.api.app import make_app
from supervisor.daemon.api.facade import Facade

DOCUMENT = Path(__file__).with_name("openapi.json")


def described() -> dict[str, Any]:
    """The description of today's routes."""
    return make_app(cast("Facade", None)).openapi()


def current() -> str:
    """The same as the file has it."""
    return json.dumps(described(), indent=1, ensure_ascii=False) + "\n"


def main() -> None:
    """Bring the file up to date."""
    DOCUMENT.write_text(current(), encoding="utf-8")
    sys.stdout.write(f"{DOCUMENT.name} is current\n")


if __name__ == "__main__":
    main()
