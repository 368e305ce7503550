"""Find what MODULE:NAME means on the command line."""

from __future__ import annotations

import importlib
import os
import sys
from typing import Any

from outbox.cli.options import usage


def find(path: str, wanted: str) -> Any:
    """Import MODULE:NAME, from the current folder too; None if the module has no such name."""
    module_name, colon, name = path.partition(":")
    if not colon:
        raise usage(f"{path!r} does not say which object: {wanted}")
    sys.path.insert(0, os.getcwd())
    try:
        module = importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        if error.name and (module_name + ".").startswith(error.name + "."):
            raise usage(f"there is no module {error.name!r} here ({os.getcwd()}) or installed") from error
        raise
    return getattr(module, name, None)
