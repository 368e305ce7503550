"""Where in the handler's own code an error was raised."""

import json
from functools import wraps
from types import ModuleType

from outbox import payload
from outbox.places import place_of


def raised(function, *arguments) -> BaseException:
    try:
        function(*arguments)
    except BaseException as error:
        return error
    raise AssertionError("it raised nothing")


def fails() -> None:
    raise ValueError


LINE = fails.__code__.co_firstlineno + 1


def decorated(function):
    @wraps(function)
    def wrapper():
        return function()

    return wrapper


def test_it_is_the_last_frame_with_the_file_as_its_module_is_called() -> None:
    assert place_of(raised(fails)) == f"tests/unit/test_places.py:{LINE} fails"
    assert place_of(raised(decorated(fails))) == f"tests/unit/test_places.py:{LINE} fails"


def test_what_a_library_raises_was_raised_where_it_was_called() -> None:
    def handler() -> None:
        json.loads("{")

    line = handler.__code__.co_firstlineno + 1
    assert place_of(raised(handler)) == f"tests/unit/test_places.py:{line} handler"


def test_our_own_frames_do_not_count() -> None:
    def handler() -> None:
        payload.decode(b"{", dict)

    assert place_of(raised(handler)).endswith(" handler")
    assert place_of(raised(payload.decode, b"{", dict)).endswith(" raised")


def test_a_handler_that_lies_among_the_libraries_is_its_own_code() -> None:
    """As an application does that was installed."""
    folder = json.__file__.rpartition("/json/")[0]
    module = ModuleType("shop.mails")
    source = "import json\ndef load(text): return json.loads(text)\ndef handle(): return load('{')\n"
    exec(compile(source, f"{folder}/shop/mails.py", "exec"), module.__dict__)
    error = raised(module.handle)
    error.__traceback__ = error.__traceback__.tb_next  # type: ignore[union-attr]  # as if nobody but it were there
    assert place_of(error) == "shop/mails.py:2 load"


def test_what_was_never_raised_has_no_place() -> None:
    assert place_of(ValueError()) == ""
