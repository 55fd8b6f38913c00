"""Writes expected/*.json: what onnxruntime answers for inputs that are made by formula.

    python3 expected.py FOLDER_WITH_MODELS

Needs onnxruntime and numpy. `support/mod.rs` makes the same inputs.
"""

import json
import sys
from pathlib import Path

import numpy as np
import onnxruntime

FILLS = {
    "wave": lambda i: np.sin(i * 0.1).astype(np.float32),
    "small-wave": lambda i: (np.sin(i * 0.3) * 0.3).astype(np.float32),
    "ids": lambda i: (i * 7919) % 30000,
    "bytes": lambda i: ((i * 7919) % 257).astype(np.int32),
    "mask": lambda i: (i % 13 != 12).astype(np.int64),
    "zeros": lambda i: i * 0,
    "16000": lambda i: i * 0 + 16000,
    "8000": lambda i: i * 0 + 8000,
}


def text(batch, sequence):
    shape = [batch, sequence]
    return {
        "input_ids": ("ids", shape),
        "attention_mask": ("mask", shape),
        "token_type_ids": ("zeros", shape),
    }


def voice(batch, samples, rate):
    return {
        "input": ("small-wave", [batch, samples]),
        "state": ("wave", [2, batch, 128]),
        "sr": (rate, []),
    }


CASES = {
    "magika_1": ("magika", {"bytes": ("bytes", [1, 2048])}),
    "magika_3": ("magika", {"bytes": ("bytes", [3, 2048])}),
    "minilm_1x32": ("minilm", text(1, 32)),
    "minilm_2x17": ("minilm", text(2, 17)),
    "silero_16k": ("silero_vad", voice(1, 576, "16000")),
    "silero_16k_batch": ("silero_vad", voice(3, 576, "16000")),
    "silero_8k": ("silero_vad", voice(1, 288, "8000")),
    "silero_op15": ("silero_vad_16k_op15", voice(2, 576, "16000")),
    "orientation_1": ("orientation", {"x": ("wave", [1, 3, 224, 224])}),
    "orientation_2": ("orientation", {"x": ("wave", [2, 3, 224, 224])}),
    "text_direction_1": ("text_direction", {"x": ("wave", [1, 3, 48, 192])}),
    "text_direction_2": ("text_direction", {"x": ("wave", [2, 3, 48, 100])}),
}


def main(folder):
    for case, (model, inputs) in CASES.items():
        session = onnxruntime.InferenceSession(Path(folder) / f"{model}.onnx")
        feed = {
            name: FILLS[fill](np.arange(int(np.prod(shape)), dtype=np.int64)).reshape(shape)
            for name, (fill, shape) in inputs.items()
        }
        outputs = []
        for info, value in zip(session.get_outputs(), session.run(None, feed)):
            flat = value.astype(np.float64).ravel()
            places = sorted({int(i) for i in np.linspace(0, flat.size - 1, 64)})
            outputs.append({
                "name": info.name,
                "shape": list(value.shape),
                "abs_sum": float(np.abs(flat).sum()),
                "sample": [[i, float(flat[i])] for i in places],
            })
        content = {
            "model": model,
            "inputs": [{"name": n, "fill": f, "shape": s} for n, (f, s) in inputs.items()],
            "outputs": outputs,
        }
        path = Path(__file__).parent / "expected" / f"{case}.json"
        path.write_text(json.dumps(content, indent=1) + "\n")
        print(path.name)


if __name__ == "__main__":
    main(sys.argv[1])
