"""Counts the words of a text: the body of a request is the text, the answer is JSON.

`WitWorld` is what Firebox calls; `wit/function.wit` has the interface. To see its Python types, and
to have an editor know them: `componentize-py --wit-path wit --world function bindings .`
"""

# `Counter` would look for it when it is asked; the files of Python's library are not there any more then.
import heapq  # noqa: F401
import json
import re
from collections import Counter

from componentize_py_types import Err
from wit_world.imports.types import (
    Dtype,
    Error,
    ErrorCode,
    Parameter,
    ParameterValue_Text,
    Request,
    Response,
    Signature,
    Tensor,
    TensorSpec,
)

WORD = re.compile(r"[^\W_]+(?:'[^\W_]+)*")


def statistics(text: str) -> dict:
    words = WORD.findall(text.lower())
    frequent = [{"word": word, "count": count} for word, count in Counter(words).most_common(3)]
    return {"lines": len(text.splitlines()), "words": len(words), "most_frequent": frequent}


class WitWorld:
    def init(self) -> None:
        """Runs before anything else. What is costly and needs no asset belongs at the top of the module."""

    def describe(self) -> Signature:
        """What goes in and what comes out: here, raw bodies."""
        body = TensorSpec("body", Dtype.BYTES, [1])
        return Signature([body], [body])

    def infer(self, request: Request) -> Response:
        """Answers one request."""
        return answer(statistics(text_of(request)))


def text_of(request: Request) -> str:
    """The body. It is a tensor of bytes, each element of which has its length before it."""
    for given in request.inputs:
        if given.name == "body":
            try:
                return given.data[4:].decode()
            except UnicodeDecodeError as error:
                raise invalid(f"the body is not UTF-8: {error}") from None
    raise invalid("send a text as the body")


def answer(value: dict) -> Response:
    data = json.dumps(value).encode()
    body = Tensor("body", Dtype.BYTES, [1], len(data).to_bytes(4, "little") + data)
    return Response([body], [Parameter("content-type", ParameterValue_Text("application/json"))])


def invalid(message: str) -> Err:
    """The caller's mistake, answered with 400. Other exceptions are the function's own, and a 502."""
    return Err(Error(ErrorCode.INVALID_INPUT, message))
