"""Runs a model on onnxruntime as it is told, line by line.

Arguments: the model's file and the number of threads. First line in: the inputs as JSON; out: the
version and what the first answer took. Then a number in; out: the times of so many runs.
"""

import json
import sys
import time

import numpy
import onnxruntime

DTYPES = {"f32": "float32", "f64": "float64", "i64": "int64", "i32": "int32", "u8": "uint8",
          "i8": "int8", "bool": "bool"}


def memory(line):
    with open("/proc/self/status") as status:
        return next(int(text.split()[1]) for text in status if text.startswith(line))


def main():
    path, threads = sys.argv[1], int(sys.argv[2])
    feeds = {}
    for given in json.loads(sys.stdin.readline()):
        values = numpy.fromfile(given["file"], DTYPES[given["dtype"]])
        feeds[given["name"]] = values.reshape(given["shape"])
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
        times, cpu = [], time.process_time_ns()
        for _ in range(int(line)):
            begin = time.perf_counter_ns()
            session.run(None, feeds)
            times.append(time.perf_counter_ns() - begin)
        print(json.dumps({"times_ns": times, "cpu_ns": time.process_time_ns() - cpu}), flush=True)


main()
