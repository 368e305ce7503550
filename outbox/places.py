"""Where in the handler's own code an error was raised."""

from __future__ import annotations

import sysconfig
import traceback
from pathlib import PurePath
from types import FrameType

#: Where Python and what was installed lie.
_LIBRARIES = tuple({path + "/" for name, path in sysconfig.get_paths().items() if name.endswith(("lib", "stdlib"))})
_OURS = __name__.partition(".")[0]


def place_of(error: BaseException) -> str:
    """`shop/mails.py:41 send_mail`: the last frame that is neither ours nor a library's; empty if there is none.

    Of a handler that lies among the libraries itself, the last frame of its own package.
    """
    frames = [(frame, line) for frame, line in traceback.walk_tb(error.__traceback__) if _package(frame) != _OURS]
    own = [(frame, line) for frame, line in frames if _is_own(frame, frames[0][0])]
    return _written(*own[-1]) if own else ""


def _is_own(frame: FrameType, handler: FrameType) -> bool:
    name = frame.f_code.co_filename
    if name.startswith("<"):  # of importlib, of a dataclass: nobody's file
        return frame is handler
    return _package(frame) == _package(handler) or not name.startswith(_LIBRARIES)


def _package(frame: FrameType) -> str:
    return str(frame.f_globals.get("__name__", "")).partition(".")[0]


def _written(frame: FrameType, line: int) -> str:
    """The file as its module is called: whole paths differ from machine to machine, names alone are not unique."""
    path = PurePath(frame.f_code.co_filename)
    depth = str(frame.f_globals.get("__name__", "")).count(".") + 1 + (path.name == "__init__.py")
    return f"{'/'.join(path.parts[-depth:])}:{line} {frame.f_code.co_name}"
