"""What an unmodified tritonclient says to a Firebox server over gRPC.

    triton_grpc.py ADDRESS PART

Each part is one function below; it ends with an exception where an answer is not what it must be.
"""

import json
import queue
import sys
import urllib.request
from concurrent.futures import ThreadPoolExecutor

import grpc
import ml_dtypes
import numpy as np
import tritonclient.grpc as triton
from tritonclient.grpc import service_pb2, service_pb2_grpc
from tritonclient.utils import InferenceServerException

ADDRESS = sys.argv[1]


def tensor(name, array, datatype):
    given = triton.InferInput(name, array.shape, datatype)
    given.set_data_from_numpy(array)
    return given


def floats(values):
    return tensor("x", np.array(values, dtype=np.float32), "FP32")


def refused(code, word, call):
    """The call must fail with this code, and say the word."""
    try:
        call()
    except InferenceServerException as error:
        assert error.status() == f"StatusCode.{code}", (error.status(), error.message())
        assert word in error.message(), error.message()
    else:
        raise AssertionError(f"{code} was expected, and it went well")


def health(client):
    assert client.is_server_live()
    assert client.is_server_ready()
    assert client.is_model_ready("adder")
    assert client.is_model_ready("adder", "1")
    assert not client.is_model_ready("adder", "9")
    assert not client.is_model_ready("nobody")
    refused("INVALID_ARGUMENT", "0x", lambda: client.is_model_ready("adder", "0x"))


def metadata(client):
    server = client.get_server_metadata(as_json=True)
    assert server["name"] == "firebox", server
    assert "statistics" in server["extensions"], server
    assert "binary_tensor_data" not in server["extensions"], server
    model = client.get_model_metadata("adder", as_json=True)
    assert model["platform"] == "firebox_onnx", model
    assert model["versions"] == ["1", "2"], model
    assert model["inputs"] == [{"name": "x", "datatype": "FP32", "shape": ["-1"]}], model
    assert model["outputs"] == [{"name": "y", "datatype": "FP32", "shape": ["-1"]}], model
    refused("NOT_FOUND", "Did you mean `adder`?", lambda: client.get_model_metadata("ader"))
    config = client.get_model_config("adder").config
    assert config.name == "adder" and config.backend == "firebox", config
    assert config.input[0].data_type == 11 and list(config.input[0].dims) == [-1], config
    assert config.output[0].name == "y", config
    assert config.parameters["tier"].string_value == "on-demand", config


def infer(client):
    answer = client.infer("adder", [floats([1, 2.5])], request_id="42")
    response = answer.get_response()
    assert (response.model_name, response.id) == ("adder", "42"), response
    assert answer.as_numpy("y").tolist() == [2.0, 3.5]
    wanted = [triton.InferRequestedOutput("y")]
    answer = client.infer("adder", [floats([])], outputs=wanted)
    assert answer.as_numpy("y").shape == (0,)
    assert len(answer.get_response().id) == 36, "without an id it is the prediction's"
    # Version 2 adds 10.
    assert client.infer("adder", [floats([1])], "2").as_numpy("y").tolist() == [11.0]
    assert client.infer("adder", [floats([1])], "next").as_numpy("y").tolist() == [11.0]
    pinned = client.infer("adder", [floats([1])], headers={"x-firebox-version": "2"})
    assert pinned.get_response().model_version == "2"
    labelled = client.infer("adder", [floats([1])], headers={"x-firebox-label": "next"})
    assert labelled.get_response().model_version == "2"
    large = np.arange(2_000_000, dtype=np.float32)
    answer = client.infer("adder", [tensor("x", large, "FP32")])
    assert np.array_equal(answer.as_numpy("y"), large + 1)
    for algorithm in ["gzip", "deflate"]:
        pack = lambda: client.infer("adder", [floats([1])], compression_algorithm=algorithm)
        if algorithm == "gzip":
            assert pack().as_numpy("y").tolist() == [2.0]
        else:
            refused("UNIMPLEMENTED", "gzip", pack)


def datatypes(client):
    """Functions that give back what they are given, one for each datatype."""
    for datatype, dtype, values in [
        ("BOOL", np.bool_, [True, False]),
        ("UINT8", np.uint8, [0, 255]),
        ("UINT16", np.uint16, [0, 65535]),
        ("UINT32", np.uint32, [0, 2**32 - 1]),
        ("UINT64", np.uint64, [0, 2**64 - 1]),
        ("INT8", np.int8, [-128, 127]),
        ("INT16", np.int16, [-32768, 32767]),
        ("INT32", np.int32, [-(2**31), 2**31 - 1]),
        ("INT64", np.int64, [-(2**63), 2**63 - 1]),
        ("FP16", np.float16, [1.5, -0.25]),
        ("BF16", ml_dtypes.bfloat16, [1.5, -0.25]),
        ("FP32", np.float32, [1.5, np.inf]),
        ("FP64", np.float64, [1.5, -1e300]),
        ("BYTES", np.object_, [b"a\x00\xff", "é".encode()]),
    ]:
        given = np.array(values, dtype=dtype)
        name = f"identity-{datatype.lower()}"
        answer = client.infer(name, [tensor("x", given, datatype)])
        assert answer.get_response().outputs[0].datatype == datatype, answer.get_response()
        got = answer.as_numpy("y")
        assert got.tolist() == given.tolist(), (datatype, got, given)


def typed(_):
    """The lists of `contents`, which tritonclient itself never fills."""
    stub = service_pb2_grpc.GRPCInferenceServiceStub(grpc.insecure_channel(ADDRESS))
    for datatype, field, values in [
        ("BOOL", "bool_contents", [True, False]),
        ("INT8", "int_contents", [-128, 127]),
        ("INT16", "int_contents", [-32768, 32767]),
        ("INT32", "int_contents", [-1, 2]),
        ("INT64", "int64_contents", [-1, 2**40]),
        ("UINT8", "uint_contents", [0, 255]),
        ("UINT16", "uint_contents", [0, 65535]),
        ("UINT32", "uint_contents", [0, 2**32 - 1]),
        ("UINT64", "uint64_contents", [0, 2**64 - 1]),
        ("FP32", "fp32_contents", [1.5, -2.0]),
        ("FP64", "fp64_contents", [1.5, 1e300]),
        ("BYTES", "bytes_contents", [b"a", b""]),
    ]:
        request = service_pb2.ModelInferRequest(model_name=f"identity-{datatype.lower()}")
        given = request.inputs.add(name="x", datatype=datatype, shape=[2])
        getattr(given.contents, field).extend(values)
        result = triton.InferResult(stub.ModelInfer(request, timeout=60))
        assert result.as_numpy("y").tolist() == values, (datatype, result.as_numpy("y"))


def bad_input(client):
    stub = service_pb2_grpc.GRPCInferenceServiceStub(grpc.insecure_channel(ADDRESS))

    def ask(change, code, word):
        request = service_pb2.ModelInferRequest(model_name="adder")
        request.inputs.add(name="x", datatype="FP32", shape=[2])
        request.inputs[0].contents.fp32_contents.extend([1, 2])
        change(request, request.inputs[0])
        try:
            stub.ModelInfer(request, timeout=60)
        except grpc.RpcError as error:
            assert error.code() == code, (error.code(), error.details())
            assert word in error.details(), error.details()
            return error
        raise AssertionError(f"{word} was expected, and it went well")

    wrong = grpc.StatusCode.INVALID_ARGUMENT
    raw = b"\0" * 8

    def both(request, _):
        request.raw_input_contents.append(raw)

    def without(request, given):
        given.ClearField("contents")
        return given

    def bytes_of(content):
        def change(request, given):
            without(request, given)
            request.raw_input_contents.extend(content)

        return change

    ask(both, wrong, "send one of both")
    ask(bytes_of([raw, raw]), wrong, "holds 2 tensors for 1 inputs")
    ask(bytes_of([raw[1:]]), wrong, "needs 8 bytes, got 7")
    ask(without, wrong, "`fp32_contents` holds 0")
    ask(lambda r, x: x.contents.int_contents.append(1), wrong, "`int_contents` holds 1")
    ask(lambda r, x: x.contents.fp32_contents.append(1), wrong, "holds 3")
    ask(lambda r, x: x.shape.append(-1), wrong, "expected 0 or more")
    ask(lambda r, x: x.shape.extend([2**62, 2**62]), wrong, "more elements")
    ask(lambda r, x: x.shape.extend([1] * 100_000), wrong, "at most 32 dimensions")
    ask(lambda r, x: setattr(x, "datatype", "FLOAT"), wrong, "expected one of BOOL")
    ask(lambda r, x: setattr(x, "name", "z"), wrong, "`z`")
    ask(lambda r, x: r.outputs.add(name="z"), wrong, "the outputs are `y`")
    twice = [service_pb2.ModelInferRequest.InferRequestedOutputTensor(name="y")] * 10_000
    ask(lambda r, x: r.outputs.extend(twice), wrong, "`y` is asked for twice")
    # A status is a header, and clients give up on long ones.
    ask(lambda r, x: setattr(x, "name", "é" * 100_000), wrong, "there is no input `é")
    ask(lambda r, x: r.parameters["p"].SetInParent(), wrong, "has no value")
    ask(lambda r, x: setattr(r, "model_version", "Two"), wrong, "Two")
    shared = lambda r, x: x.parameters["shared_memory_region"].MergeFrom(
        service_pb2.InferParameter(string_param="r")
    )
    ask(shared, wrong, "shared_memory_region")
    ask(lambda r, x: setattr(r, "model_version", "9"), grpc.StatusCode.NOT_FOUND, "newest versions: 2, 1")
    error = ask(
        lambda r, x: setattr(r, "model_name", "ader"),
        grpc.StatusCode.NOT_FOUND,
        "Did you mean `adder`?",
    )
    assert error.initial_metadata() is not None
    # A message over the limit of 1 MiB is refused, and the connection goes on.
    large = np.zeros(400_000, dtype=np.float32)
    too_large = lambda: client.infer("adder", [tensor("x", large, "FP32")])
    refused("RESOURCE_EXHAUSTED", "larger than the limit of 1048576 bytes", too_large)
    bomb = lambda: client.infer(
        "adder", [tensor("x", large, "FP32")], compression_algorithm="gzip"
    )
    refused("RESOURCE_EXHAUSTED", "larger than the limit", bomb)
    assert client.infer("adder", [floats([1])]).as_numpy("y").tolist() == [2.0]
    refused("UNIMPLEMENTED", "`TraceSetting`", lambda: client.get_trace_settings())


def failures(client):
    """What a component does ill, over gRPC."""
    pair = [tensor("x", np.ones((1, 2), dtype=np.float32), "FP32")]
    ask = lambda mode, **more: client.infer("probe", pair, parameters={"mode": mode}, **more)
    answer = client.infer(
        "probe", pair, parameters={"mode": "echo", "n": 7, "on": True, "half": 0.5}
    )
    told = {name: value for name, value in answer.get_response().parameters.items()}
    assert told["n"].int64_param == 7 and told["on"].bool_param and told["half"].double_param == 0.5
    assert answer.as_numpy("x").tolist() == [[1.0, 1.0]]
    refused("INVALID_ARGUMENT", "refused on purpose", lambda: ask("refuse"))
    refused("UNAVAILABLE", "unavailable on purpose", lambda: ask("unavailable"))
    refused("INTERNAL", "internal on purpose", lambda: ask("internal"))
    refused("INTERNAL", "the function stopped", lambda: ask("panic"))
    refused("INTERNAL", "memory", lambda: ask("allocate"))
    brief = {"x-firebox-timeout-ms": "200"}
    refused("DEADLINE_EXCEEDED", "no answer within", lambda: ask("spin", headers=brief))
    # The client's own deadline travels as grpc-timeout.
    refused("DEADLINE_EXCEEDED", "", lambda: ask("spin", client_timeout=0.2))
    stub = service_pb2_grpc.GRPCInferenceServiceStub(grpc.insecure_channel(ADDRESS))
    request = service_pb2.ModelInferRequest(model_name="probe")
    request.parameters["mode"].string_param = "unavailable"
    given = request.inputs.add(name="x", datatype="FP32", shape=[1, 2])
    given.contents.fp32_contents.extend([1, 2])
    _, call = None, stub.ModelInfer.future(request)
    assert call.code() == grpc.StatusCode.UNAVAILABLE
    told = dict(call.initial_metadata()) | dict(call.trailing_metadata())
    assert told["x-firebox-version"] == "1" and len(told["x-firebox-prediction-id"]) == 36, told
    assert told["retry-after"] == "1" and told["grpc-retry-pushback-ms"] == "1000", told
    request.parameters["mode"].string_param = "echo"
    _, call = stub.ModelInfer.with_call(request)
    told = dict(call.initial_metadata())
    assert told["x-firebox-version"] == "1" and "compute;dur=" in told["server-timing"], told


def stream(client):
    answers = queue.Queue()
    client.start_stream(lambda result, error: answers.put((result, error)))
    for number in range(100):
        client.async_stream_infer("adder", [floats([number])], request_id=str(number))
    client.async_stream_infer("nobody", [floats([1])], request_id="lost")
    client.async_stream_infer("adder", [floats([1])], model_version="2", request_id="last")
    for number in range(100):
        result, error = answers.get(timeout=60)
        assert error is None, error
        response = result.get_response()
        assert response.id == str(number), "answers come in the order of the questions"
        assert len(response.parameters["firebox_prediction_id"].string_param) == 36
        assert result.as_numpy("y").tolist() == [number + 1.0]
    result, error = answers.get(timeout=60)
    assert result is None and "there is no function `nobody`" in error.message(), error
    result, error = answers.get(timeout=60)
    assert error is None and result.as_numpy("y").tolist() == [11.0], "the stream goes on"
    client.async_stream_infer("adder", [floats([1])], enable_empty_final_response=True)
    result, error = answers.get(timeout=60)
    assert result.get_response().parameters["triton_final_response"].bool_param
    client.stop_stream()
    assert answers.empty()


def raw_stream(_):
    """Streams as only a stub can hold them."""
    stub = service_pb2_grpc.GRPCInferenceServiceStub(grpc.insecure_channel(ADDRESS))

    def question(id, values=(1,), name="adder"):
        request = service_pb2.ModelInferRequest(model_name=name, id=id)
        given = request.inputs.add(name="x", datatype="FP32", shape=[len(values)])
        given.contents.fp32_contents.extend(values)
        return request

    # What goes wrong carries its question's id too.
    answers = list(stub.ModelStreamInfer(iter([question("a", name="nobody"), question("b")])))
    assert [answer.infer_response.id for answer in answers] == ["a", "b"], answers
    assert "nobody" in answers[0].error_message and not answers[1].error_message
    # One that shall end by a status does so at the first failure.
    strict = [("triton_grpc_error", "true")]
    call = stub.ModelStreamInfer(
        iter([question("a"), question("b", name="nobody"), question("c")]), metadata=strict
    )
    got = []
    try:
        for answer in call:
            got.append(answer.infer_response.id)
        raise AssertionError("it ended well")
    except grpc.RpcError as error:
        assert error.code() == grpc.StatusCode.NOT_FOUND, error
    assert got == ["a"], got
    # A message over the limit ends it, as nothing behind it can be read.
    call = stub.ModelStreamInfer(iter([question("a"), question("b", [0.0] * 400_000)]))
    try:
        assert [answer.infer_response.id for answer in call] == ["a"]
        raise AssertionError("it ended well")
    except grpc.RpcError as error:
        assert error.code() == grpc.StatusCode.RESOURCE_EXHAUSTED, error
    # One on which nothing comes any more is ended by the server (after 1 s, as it is set up).
    silent = queue.Queue()
    silent.put(question("a"))
    call = stub.ModelStreamInfer(iter(silent.get, None))
    try:
        assert [answer.infer_response.id for answer in call] == ["a"]
        raise AssertionError("it ended well")
    except grpc.RpcError as error:
        assert error.code() == grpc.StatusCode.DEADLINE_EXCEEDED, error
        assert "no message came in 1s" in error.details(), error
    silent.put(None)
    # The whole of a stream has the caller's deadline.
    brief = queue.Queue()
    call = stub.ModelStreamInfer(iter(brief.get, None), timeout=0.3)
    try:
        list(call)
        raise AssertionError("it ended well")
    except grpc.RpcError as error:
        assert error.code() == grpc.StatusCode.DEADLINE_EXCEEDED, error
    brief.put(None)


def many_streams(_):
    """More streams than a connection carries at once; those beyond wait for their turn."""
    channel = grpc.insecure_channel(ADDRESS)
    stub = service_pb2_grpc.GRPCInferenceServiceStub(channel)

    def questions(id):
        for number in range(3):
            request = service_pb2.ModelInferRequest(model_name="adder", id=f"{id}-{number}")
            given = request.inputs.add(name="x", datatype="FP32", shape=[1])
            given.contents.fp32_contents.append(number)
            yield request

    def ask(id):
        return [answer.infer_response.id for answer in stub.ModelStreamInfer(questions(id))]

    # A client's stream is over when its answers are read, so each is read by a thread of its own.
    with ThreadPoolExecutor(60) as threads:
        for id, ids in enumerate(threads.map(ask, range(60), timeout=120)):
            assert ids == [f"{id}-{number}" for number in range(3)], ids


def sticky(client):
    """One key in a body gets one version, over gRPC and over REST."""
    seen = set()
    for user in range(40):
        parameters = {"user": f"user-{user}"}
        over_grpc = client.infer("adder", [floats([1])], parameters=parameters)
        version = over_grpc.get_response().model_version
        given = {"name": "x", "datatype": "FP32", "shape": [1], "data": [1]}
        body = json.dumps({"parameters": parameters, "inputs": [given]}).encode()
        url = f"http://{ADDRESS}/v2/models/adder/infer"
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        over_rest = json.load(opener.open(url, body, timeout=60))
        assert over_rest["model_version"] == version, (user, over_rest, version)
        seen.add(version)
    assert seen == {"1", "2"}, seen


def until_stopped(_):
    """A stream that is open when the server is told to stop."""
    stub = service_pb2_grpc.GRPCInferenceServiceStub(grpc.insecure_channel(ADDRESS))
    questions = queue.Queue()
    request = service_pb2.ModelInferRequest(model_name="adder", id="a")
    given = request.inputs.add(name="x", datatype="FP32", shape=[1])
    given.contents.fp32_contents.append(1)
    questions.put(request)
    call = stub.ModelStreamInfer(iter(questions.get, None))
    try:
        assert [answer.infer_response.id for answer in call] == ["a"]
        raise AssertionError("it ended well")
    except grpc.RpcError as error:
        assert error.code() == grpc.StatusCode.UNAVAILABLE, error
        assert "shutting down" in error.details(), error
    questions.put(None)


def repository(client):
    def states(**asked):
        entries = client.get_model_repository_index(**asked).models
        return {(entry.name, entry.version): entry.state for entry in entries}

    client.unload_model("adder")
    assert states()["adder", "1"] == "UNAVAILABLE", states()
    client.load_model("adder")
    assert states()["adder", "1"] == "READY", states()
    ready = service_pb2.RepositoryIndexRequest(ready=True)
    stub = service_pb2_grpc.GRPCInferenceServiceStub(grpc.insecure_channel(ADDRESS))
    listed = [(model.name, model.version) for model in stub.RepositoryIndex(ready).models]
    assert listed == [("adder", "1")], listed
    refused("NOT_FOUND", "`nobody`", lambda: client.load_model("nobody"))
    refused("NOT_FOUND", "`nobody`", lambda: client.unload_model("nobody"))
    refused("INVALID_ARGUMENT", "`config`", lambda: client.load_model("adder", config="{}"))
    files = {"file:1/model.onnx": b"\x08\x08"}
    override = lambda: client.load_model("adder", config="{}", files=files)
    refused("INVALID_ARGUMENT", "another version", override)
    for _ in range(3):
        client.infer("adder", [floats([1, 2])])
    refused("INVALID_ARGUMENT", "`z`", lambda: client.infer("adder", [floats([1])], outputs=[triton.InferRequestedOutput("z")]))
    told = client.get_inference_statistics("adder").model_stats
    assert [entry.version for entry in told] == ["1", "2"], told
    first = told[0]
    assert first.inference_stats.success.count == 3, first
    assert first.inference_stats.fail.count == 1, first
    assert first.inference_stats.compute_infer.ns > 0 and first.last_inference > 0, first
    every = client.get_inference_statistics().model_stats
    assert [(entry.name, entry.version) for entry in every] == [("adder", "1")], every
    one = client.get_inference_statistics("adder", "2").model_stats
    assert [entry.version for entry in one] == ["2"] and not one[0].inference_stats.success.count


PARTS = [health, metadata, infer, datatypes, typed, bad_input, failures, stream, raw_stream]
PARTS += [many_streams, sticky, until_stopped, repository]

if __name__ == "__main__":
    part = {part.__name__: part for part in PARTS}[sys.argv[2]]
    with triton.InferenceServerClient(ADDRESS) as client:
        part(client)
    print(sys.argv[2], "passed")
