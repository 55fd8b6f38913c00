"""Which programming language a pasted snippet is in.

`firebox build` turns this module and `cleaning` into a component, with CPython inside. The class
`WitWorld` is what the host calls; the interface is `wit/function.wit`.
"""

# Python would look for it when it decodes; the files of its library are not there any more then.
import encodings.utf_8_sig  # noqa: F401
import json
import struct

import cleaning
from componentize_py_types import Err
from wit_world.imports import graph, tensor
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

GUESSES = 3


class Magika:
    """What the network needs to know of magika's configuration."""

    def __init__(self, path: str) -> None:
        with open(path, encoding="utf-8") as file:
            config = json.load(file)
        self.labels = config["target_labels_space"]
        self.beginning = config["beg_size"]
        self.end = config["end_size"]
        self.padding = config["padding_token"]
        self.fewest = config["min_file_size_for_dl"]

    def window(self, code: bytes) -> list[int]:
        """The first and the last bytes as numbers, filled up where there are fewer."""
        first, last = list(code[: self.beginning]), list(code[-self.end :])
        first += [self.padding] * (self.beginning - len(first))
        return first + [self.padding] * (self.end - len(last)) + last

    def scores(self, code: bytes) -> list[float]:
        window = self.window(code)
        data = struct.pack(f"<{len(window)}i", *window)
        question = tensor.Tensor([1, len(window)], tensor.TensorType.I32, data)
        context = graph.load_by_name("magika").init_execution_context()
        ((_, answer),) = context.compute([("bytes", question)])
        return list(struct.unpack(f"<{len(self.labels)}f", answer.data()))


magika: Magika | None = None


class WitWorld:
    def init(self) -> None:
        """Runs before anything else; what it leaves in memory is there in every request."""
        global magika
        magika = Magika("/magika.config.json")

    def describe(self) -> Signature:
        body = TensorSpec("body", Dtype.BYTES, [1])
        return Signature([body], [body])

    def infer(self, request: Request) -> Response:
        code = cleaning.code_in(text_of(request)).encode()
        if len(code) < magika.fewest:
            raise invalid(f"the snippet has {len(code)} bytes of code: {magika.fewest} are needed")
        ranked = sorted(zip(magika.scores(code), magika.labels), reverse=True)
        guesses = [
            {"language": label, "score": round(score, 4)} for score, label in ranked[:GUESSES]
        ]
        answer = {"language": guesses[0]["language"], "guesses": guesses, "bytes": len(code)}
        data = json.dumps(answer).encode()
        body = Tensor("body", Dtype.BYTES, [1], struct.pack("<I", len(data)) + data)
        kind = Parameter("content-type", ParameterValue_Text("application/json"))
        return Response([body], [kind])


def text_of(request: Request) -> str:
    """The body, which has its length before it as each element of a tensor of bytes."""
    body = next((given for given in request.inputs if given.name == "body"), None)
    if body is None or len(body.data) < 4:
        raise invalid("send the snippet as the body")
    try:
        return body.data[4:].decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise invalid(f"the snippet is not UTF-8 text: {error}") from None


def invalid(message: str) -> Err:
    """The caller's mistake: answered with 400."""
    return Err(Error(ErrorCode.INVALID_INPUT, message))
