"""Runs a model on onnxruntime as it is told: JSON objects come in line by line, and go out.

Arguments: the model's file and the number of threads. First comes {"feed": [...]}, the inputs;
the answer says what the first run took. Then {"run": N} gives the times of so many runs,
{"answer": FOLDER} writes the outputs to files, and {"feed": [...]} changes the inputs.
"""

import json
import sys
import time

import numpy
import onnxruntime

DTYPES = {"f32": "float32", "f64": "float64", "i64": "int64", "i32": "int32", "u8": "uint8",
          "i8": "int8", "bool": "bool"}
NAMES = {name: dtype for dtype, name in DTYPES.items()}


def memory(line):
    with open("/proc/self/status") as status:
        return next(int(text.split()[1]) for text in status if text.startswith(line))


def tensors(feed):
    return {given["name"]: numpy.fromfile(given["file"], DTYPES[given["dtype"]])
            .reshape(given["shape"]) for given in feed}


def answer(session, feeds, folder):
    outputs = []
    for number, (output, made) in enumerate(zip(session.get_outputs(), session.run(None, feeds))):
        file = f"{folder}/output-{number}"
        numpy.ascontiguousarray(made).tofile(file)
        outputs.append({"name": output.name, "dtype": NAMES[made.dtype.name],
                        "shape": list(made.shape), "file": file})
    return {"outputs": outputs}


def run(session, feeds, count):
    times, cpu = [], time.process_time_ns()
    for _ in range(count):
        begin = time.perf_counter_ns()
        session.run(None, feeds)
        times.append(time.perf_counter_ns() - begin)
    return {"times_ns": times, "cpu_ns": time.process_time_ns() - cpu}


def main():
    path, threads = sys.argv[1], int(sys.argv[2])
    feeds = tensors(json.loads(sys.stdin.readline())["feed"])
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    before, started = memory("VmRSS:"), time.perf_counter()
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    session.run(None, feeds)
    took = (time.perf_counter() - started) * 1000
    footprint = {"first_answer_ms": took, "peak_kib": max(0, memory("VmHWM:") - before)}
    print(json.dumps({"version": onnxruntime.__version__, "footprint": footprint}), flush=True)
    for line in sys.stdin:
        told = json.loads(line)
        if "run" in told:
            said = run(session, feeds, told["run"])
        elif "answer" in told:
            said = answer(session, feeds, told["answer"])
        else:
            feeds, said = tensors(told["feed"]), {}
        print(json.dumps(said), flush=True)


main()
