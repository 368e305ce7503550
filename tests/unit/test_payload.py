"""What a publish takes, and what it refuses with an error that says what to do."""

import dataclasses
import datetime
import decimal
import uuid
from typing import Any

import msgspec
import pydantic
import pytest
from hypothesis import given
from hypothesis import strategies as st

from outbox import InvalidMessage, Limits
from outbox.payload import check_topic, decode, encode


def encoded(value: Any, key: str | None = None, headers: Any = None, content_type: str | None = None, **limits: int):
    return encode(value, Limits(**limits), key, headers, content_type)


class Model(pydantic.BaseModel):
    id: int
    at: datetime.date


class Priced(pydantic.BaseModel):
    price: float


class Struct(msgspec.Struct):
    id: int
    at: datetime.date


@dataclasses.dataclass
class Data:
    id: int
    at: datetime.date


@pytest.mark.parametrize("kind", [Model, Struct, Data])
def test_typed_payloads_come_back_as_they_went(kind: Any) -> None:
    value = kind(id=1, at=datetime.date(2026, 1, 2))
    json = encoded(value).json
    assert json == '{"id":1,"at":"2026-01-02"}'
    assert decode(json.encode(), kind) == value


json_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**53), 2**53)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=20,
)


@given(json_values)
def test_any_json_value_comes_back_as_it_went(value: Any) -> None:
    json = encoded(value).json
    assert json is not None
    assert msgspec.json.decode(json) == value


def test_common_types_become_json() -> None:
    value = {"id": uuid.UUID(int=1), "price": decimal.Decimal("1.20"), "at": datetime.datetime(2026, 1, 2, 3)}
    assert encoded(value).json == (
        '{"id":"00000000-0000-0000-0000-000000000001","price":"1.20","at":"2026-01-02T03:00:00"}'
    )


@given(st.binary())
def test_bytes_are_stored_as_they_are_with_a_content_type(body: bytes) -> None:
    message = encoded(body)
    assert (message.json, message.body) == (None, body)
    assert message.headers == '{"content-type":"application/octet-stream"}'


def test_a_content_type_can_be_named_for_bytes_and_only_for_bytes() -> None:
    assert encoded(b"x", content_type="image/png").headers == '{"content-type":"image/png"}'
    with pytest.raises(InvalidMessage, match="goes with a payload of bytes, not dict"):
        encoded({}, content_type="image/png")


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ({"value": object()}, "can't be stored as JSON"),
        ({"value": {"a": {1, object()}}}, "can't be stored as JSON"),
        ({"value": "\ud800"}, "can't be stored as JSON"),
        ({"value": {"a": [1.5, float("nan")], "b": None}}, "NaN and infinity are no JSON"),
        ({"value": Priced(price=float("inf"))}, "NaN and infinity are no JSON"),
        ({"value": 1, "headers": "x"}, "headers are a dict"),
        ({"value": "x" * 20, "payload": 21}, "has 22 bytes, the limit is 21: store it elsewhere"),
        ({"value": b"x" * 22, "payload": 21}, "has 22 bytes, the limit is 21"),
        ({"value": 1, "key": 4711}, r"the key is a str, not int: str\(4711\) would be one"),
        ({"value": 1, "key": "a\0b"}, "the key contains a NUL character"),
        ({"value": 1, "key": "\ud800"}, "the key is not valid Unicode"),
        ({"value": 1, "key": "é" * 513}, "the key has 1,026 bytes, the limit is 1,024"),
        ({"value": 1, "headers": {"": "x"}}, "'' is not a header name"),
        ({"value": 1, "headers": {"a b": "x"}}, "'a b' is not a header name"),
        ({"value": 1, "headers": {"x" * 129: "x"}}, "is not a header name"),
        ({"value": 1, "headers": {1: "x"}}, "1 is not a header name"),
        ({"value": 1, "headers": {"a": 1}}, "header 'a' is a int, not a str"),
        ({"value": 1, "headers": {"a": "\0"}}, "header 'a' contains a NUL character"),
        ({"value": 1, "headers": {"a": "x" * 8193}}, "header 'a' has 8,193 bytes"),
        ({"value": 1, "headers": {f"h{n}": "x" for n in range(65)}}, "has 65 headers, the limit is 64"),
    ],
)
def test_what_cannot_be_stored_is_refused_with_the_reason(arguments: dict[str, Any], says: str) -> None:
    with pytest.raises(InvalidMessage, match=says):
        encoded(**arguments)


def test_a_payload_that_nests_for_ever_is_refused() -> None:
    endless: list[Any] = []
    endless.append(endless)
    with pytest.raises(InvalidMessage, match="can't be stored as JSON"):
        encoded(endless)


@pytest.mark.parametrize("name", ["orders", "orders.placed", "a-b_c.D9", "x" * 255])
def test_topic_names_that_are_good(name: str) -> None:
    check_topic(name)


@pytest.mark.parametrize("name", ["", ".", "a.", ".a", "a..b", "a b", "a/b", "a*", "#", "é", "a\n", "x" * 256])
def test_topic_names_that_are_refused(name: str) -> None:
    with pytest.raises(InvalidMessage, match="is not a topic name"):
        check_topic(name)
