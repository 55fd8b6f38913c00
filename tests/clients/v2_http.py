"""What Triton's own HTTP client does with a Firebox server: `v2_http.py ADDRESS PART`.

The server has `adder`, a model that adds one to `x` (FP32, one open dimension), and `echo`, a
component that gives its inputs back when the parameter `mode` says `echo`.
"""

import sys

import ml_dtypes
import numpy as np
import tritonclient.http as triton
from tritonclient.utils import InferenceServerException

ECHO = {"mode": "echo"}


def tensor(name, array, datatype, binary):
    given = triton.InferInput(name, list(array.shape), datatype)
    given.set_data_from_numpy(array, binary_data=binary)
    return given


def health_and_metadata(client):
    assert client.is_server_live() and client.is_server_ready()
    assert client.is_model_ready("adder") and client.is_model_ready("adder", "1")
    assert not client.is_model_ready("nobody") and not client.is_model_ready("adder", "7")
    server = client.get_server_metadata()
    assert server["name"] == "firebox", server
    for extension in ["binary_tensor_data", "model_repository", "statistics"]:
        assert extension in server["extensions"], server
    for version in ["", "1"]:
        model = client.get_model_metadata("adder", version)
        assert model["name"] == "adder" and model["versions"] == ["1"], model
        x = {"name": "x", "datatype": "FP32", "shape": [-1]}
        assert model["inputs"] == [x], model
        config = client.get_model_config("adder", version)
        assert config["max_batch_size"] == 0, config
        assert config["input"] == [{"name": "x", "data_type": "TYPE_FP32", "dims": [-1]}], config


def numbers(client):
    """Every dtype that numpy has, as JSON and as bytes, both ways."""
    samples = {
        "BOOL": np.array([[True, False], [False, True]]),
        "UINT8": np.array([0, 255], np.uint8),
        "UINT16": np.array([0, 65535], np.uint16),
        "UINT32": np.array([0, 2**32 - 1], np.uint32),
        "UINT64": np.array([0, 2**64 - 1], np.uint64),
        "INT8": np.array([-128, 127], np.int8),
        "INT16": np.array([-(2**15), 2**15 - 1], np.int16),
        "INT32": np.array([[-(2**31)], [2**31 - 1]], np.int32),
        "INT64": np.array([-(2**63), 2**63 - 1], np.int64),
        "FP32": np.array([0.1, -1e-40, 3.4028235e38, 16777217], np.float32),
        "FP64": np.array([0.1, 5e-324, -1.7976931348623157e308], np.float64),
    }
    for datatype, array in samples.items():
        for given in [True, False]:
            for wanted in [True, False]:
                result = client.infer(
                    "echo",
                    [tensor("x", array, datatype, given)],
                    outputs=[triton.InferRequestedOutput("x", binary_data=wanted)],
                    parameters=ECHO,
                )
                found = result.as_numpy("x")
                assert found.dtype == array.dtype and np.array_equal(found, array), (
                    f"{datatype} given binary={given}, wanted binary={wanted}: {found}"
                )
                parameters = result.get_output("x").get("parameters", {})
                assert ("binary_data_size" in parameters) == wanted, parameters
    # Those of 16 bits, which Triton's client only sends as bytes.
    halves = np.array([1.5, -0.25, 65504], np.float16)
    result = client.infer("echo", [tensor("x", halves, "FP16", True)], parameters=ECHO)
    assert np.array_equal(result.as_numpy("x"), halves)
    brains = np.array([1.5, -0.25, 2.0**100], ml_dtypes.bfloat16)
    result = client.infer("echo", [tensor("x", brains, "BF16", True)], parameters=ECHO)
    assert result.get_output("x")["datatype"] == "BF16"
    assert np.array_equal(result.as_numpy("x"), brains)
    empty = np.zeros([0, 2], np.float32)
    result = client.infer("echo", [tensor("x", empty, "FP32", True)], parameters=ECHO)
    assert result.get_output("x")["shape"] == [0, 2], result.get_response()


def texts(client):
    for array in [
        np.array([b"a", b"", "\u00e9\u4e2d".encode(), b"x" * 5000], object),
        np.array([["in two", "dimensions"]], object),
    ]:
        for given in [True, False]:
            for wanted in [True, False]:
                result = client.infer(
                    "echo",
                    [tensor("t", array, "BYTES", given)],
                    outputs=[triton.InferRequestedOutput("t", binary_data=wanted)],
                    parameters=ECHO,
                )
                raw = [t if isinstance(t, bytes) else t.encode() for t in array.flatten()]
                found = result.as_numpy("t")
                back = [t if isinstance(t, bytes) else t.encode() for t in found.flatten()]
                assert back == raw and found.shape == array.shape, found
    # What is no text travels as bytes alone.
    blob = np.array([b"\xff\x00"], object)
    result = client.infer("echo", [tensor("t", blob, "BYTES", True)], parameters=ECHO)
    assert result.as_numpy("t")[0] == b"\xff\x00"
    wanted = [triton.InferRequestedOutput("t", binary_data=False)]
    refused(406, "UTF-8", lambda: client.infer(
        "echo", [tensor("t", blob, "BYTES", True)], outputs=wanted, parameters=ECHO))


def requests(client):
    """Ids, parameters, the order of outputs, and inputs of both kinds in one request."""
    a, b = np.array([1, 2], np.float32), np.array([[3]], np.int64)
    inputs = [tensor("a", a, "FP32", True), tensor("b", b, "INT64", False)]
    result = client.infer("echo", inputs, request_id="mine", parameters=ECHO | {"level": 3})
    assert result.get_response()["id"] == "mine"
    parameters = result.get_response()["parameters"]
    assert parameters["level"] == 3 and "binary_data_output" not in parameters, parameters
    wanted = [
        triton.InferRequestedOutput("b", binary_data=True),
        triton.InferRequestedOutput("a", binary_data=False),
    ]
    result = client.infer("echo", inputs, outputs=wanted, parameters=ECHO)
    assert [o["name"] for o in result.get_response()["outputs"]] == ["b", "a"]
    assert np.array_equal(result.as_numpy("a"), a) and np.array_equal(result.as_numpy("b"), b)
    for version in ["1", "gold"]:
        result = client.infer("adder", [tensor("x", a, "FP32", True)], model_version=version)
        assert np.array_equal(result.as_numpy("y"), a + 1)
        assert result.get_response()["model_version"] == "1"
    many = [client.async_infer("adder", [tensor("x", a + n, "FP32", True)]) for n in range(8)]
    for n, pending in enumerate(many):
        assert np.array_equal(pending.get_result().as_numpy("y"), a + n + 1)
    # A body that the client makes for other ways to send it.
    body, length = triton.InferenceServerClient.generate_request_body(inputs)
    assert length is not None and len(body) > length


def compression(client):
    x = np.arange(100_000, dtype=np.float32)
    for there in [None, "gzip", "deflate"]:
        for back in [None, "gzip", "deflate"]:
            for binary in [True, False]:
                result = client.infer(
                    "adder",
                    [tensor("x", x, "FP32", binary)],
                    outputs=[triton.InferRequestedOutput("y", binary_data=binary)],
                    request_compression_algorithm=there,
                    response_compression_algorithm=back,
                )
                assert np.array_equal(result.as_numpy("y"), x + 1), (there, back, binary)


def repository(client):
    def state():
        index = client.get_model_repository_index()
        assert [entry["name"] for entry in index] == ["adder", "echo"], index
        return index[0]["state"], index[0]["reason"]

    client.unload_model("adder")
    assert state() == ("UNAVAILABLE", "unloaded"), state()
    client.load_model("adder")
    assert state() == ("READY", ""), state()
    client.unload_model("adder", unload_dependents=True)
    assert state()[0] == "UNAVAILABLE"
    # It loads again when it is called.
    x = np.array([1], np.float32)
    assert client.infer("adder", [tensor("x", x, "FP32", True)]).as_numpy("y")[0] == 2
    assert state() == ("READY", "")
    refused(404, "nobody", lambda: client.load_model("nobody"))
    refused(404, "nobody", lambda: client.unload_model("nobody"))
    refused(400, "deploy another version", lambda: client.load_model("adder", config="{}"))


def statistics(client):
    def told(version=""):
        [found] = client.get_inference_statistics("adder", version)["model_stats"]
        return found

    before = told()
    x = np.array([1, 2], np.float32)
    for _ in range(3):
        client.infer("adder", [tensor("x", x, "FP32", True)])
    refused(400, "x", lambda: client.infer("adder", [tensor("z", x, "FP32", True)]))
    after = told("1")
    assert after["name"] == "adder" and after["version"] == "1"
    assert after["inference_count"] - before["inference_count"] == 3, after
    assert after["execution_count"] - before["execution_count"] == 3, after
    assert after["last_inference"] > before["last_inference"]
    more = {
        name: (
            after["inference_stats"][name]["count"] - before["inference_stats"][name]["count"],
            after["inference_stats"][name]["ns"] - before["inference_stats"][name]["ns"],
        )
        for name in after["inference_stats"]
    }
    assert more["success"][0] == 3 and more["fail"][0] == 1, more
    assert more["cache_hit"] == (0, 0) and more["cache_miss"] == (0, 0), more
    parts = ["queue", "compute_input", "compute_infer", "compute_output"]
    assert all(more[part][0] == 3 for part in parts), more
    assert 0 < sum(more[part][1] for part in parts) <= more["success"][1], more
    [batch] = after["batch_stats"]
    assert batch["batch_size"] == 1 and batch["compute_infer"]["count"] >= 3, batch
    everything = client.get_inference_statistics()["model_stats"]
    assert "adder" in [entry["name"] for entry in everything], everything


def errors(client):
    x = np.array([1, 2], np.float32)
    refused(404, "there is no function `nobody`",
            lambda: client.infer("nobody", [tensor("x", x, "FP32", True)]))
    refused(404, "no version 7",
            lambda: client.infer("adder", [tensor("x", x, "FP32", True)], model_version="7"))
    refused(400, "there is no output `z`", lambda: client.infer(
        "adder", [tensor("x", x, "FP32", True)], outputs=[triton.InferRequestedOutput("z")]))
    refused(400, "expected", lambda: client.infer(
        "adder", [tensor("x", x.astype(np.int64), "INT64", True)]))
    refused(404, "there is nothing at", lambda: client.get_system_shared_memory_status())
    refused(400, "classification", lambda: client.infer(
        "adder", [tensor("x", x, "FP32", True)],
        outputs=[triton.InferRequestedOutput("y", class_count=1)]))


def refused(status, words, call):
    try:
        call()
    except InferenceServerException as error:
        assert error.status() == str(status) and words in error.message(), error
    else:
        raise AssertionError(f"{words} was expected to be said with {status}")


if __name__ == "__main__":
    address, part = sys.argv[1:]
    with triton.InferenceServerClient(address, concurrency=4) as client:
        globals()[part](client)
