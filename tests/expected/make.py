#!/usr/bin/env python3
"""Makes the expected answers of the examples, with onnxruntime and Python.

Usage: python3 tests/expected/make.py

Writes NAME.json beside itself, one for each example: a list of
{"sample": path, "content_type": type, "expected": answer}; and the examples' own test data,
examples/*/testdata/*.json.

Nothing here is shared with the examples: cutting to size, tokenizing, scaling and resampling are
written a second time, or left to the package that a model comes from.

Needs target/models (scripts/models.py --all) and, in an environment of its own,
    pip install onnxruntime==1.32.0 magika==1.0.3 tokenizers==0.23.3 numpy pillow
"""

import json
import wave
from fractions import Fraction
from math import ceil
from pathlib import Path

import numpy as np
import onnxruntime
from magika import Magika
from PIL import Image
from tokenizers import Tokenizer

HERE = Path(__file__).resolve().parent
WORKSPACE = HERE.parents[1]
EXAMPLES = WORKSPACE / "examples"
MODELS = WORKSPACE / "target" / "models"


def session(name: str) -> onnxruntime.InferenceSession:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1  # so that two runs give the same last digits
    return onnxruntime.InferenceSession(str(MODELS / name), options)


def answers(example: str, samples: list, answer) -> list:
    """`samples` are (file name, content type)."""
    folder = EXAMPLES / example / "samples"
    return [
        {
            "sample": f"examples/{example}/samples/{name}",
            "content_type": content_type,
            "expected": answer(folder / name),
        }
        for name, content_type in samples
    ]


# file-type: the magika package gives the whole answer.


def file_type() -> list:
    magika = Magika()

    def answer(path: Path) -> dict:
        result = magika.identify_bytes(path.read_bytes())
        kind = result.output
        return {
            "label": str(kind.label),
            "confidence": result.score,
            "description": kind.description,
            "mime_type": kind.mime_type,
            "group": kind.group,
            "is_text": kind.is_text,
        }

    names = sorted(path.name for path in (EXAMPLES / "file-type" / "samples").iterdir())
    return answers("file-type", [(name, "application/octet-stream") for name in names], answer)


# passthrough-onnx: the model alone.


def passthrough_onnx() -> list:
    model = session("text_direction.onnx")
    names = [output.name for output in model.get_outputs()]

    def answer(path: Path) -> dict:
        inputs = {
            name: np.array(value, np.float32) for name, value in json.loads(path.read_text()).items()
        }
        return {name: value.tolist() for name, value in zip(names, model.run(None, inputs))}

    samples = [(name, "application/json") for name in ("upright.json", "turned.json")]
    return answers("passthrough-onnx", samples, answer)


# sentence-embedding: the tokenizers package, one sentence at a time (so no padding at all).


def tokenizer() -> Tokenizer:
    tokenizer = Tokenizer.from_file(str(MODELS / "minilm.tokenizer.json"))
    tokenizer.no_padding()
    tokenizer.enable_truncation(256)
    tokenizer.encode_special_tokens = True  # "[SEP]" in a caller's text is text
    return tokenizer


def sentence_embedding() -> list:
    model, encode = session("minilm.onnx"), tokenizer().encode

    def vector(sentence: str) -> list:
        ids = np.array([encode(sentence).ids], np.int64)
        inputs = {
            "input_ids": ids,
            "attention_mask": np.ones_like(ids),
            "token_type_ids": np.zeros_like(ids),
        }
        (hidden,) = model.run(["last_hidden_state"], inputs)
        mean = hidden[0].mean(axis=0, dtype=np.float64)
        return [round(value, 8) for value in (mean / np.linalg.norm(mean)).tolist()]

    def answer(path: Path) -> dict:
        if path.suffix == ".json":
            sentences = json.loads(path.read_text())["sentences"]
            return {"embeddings": [vector(sentence) for sentence in sentences]}
        return {"embedding": vector(path.read_text())}

    samples = [(name, "text/plain") for name in ("cat.txt", "kitten.txt", "market.txt")]
    return answers("sentence-embedding", samples + [("several.json", "application/json")], answer)


TEXTS = [
    "A cat sits on the mat.",
    "",
    "   \t\n ",
    "HELLO wOrLd",
    "unaffable embeddings",
    "Don't split 'this', \"please\"!",
    "e-mail: someone@example.org, http://example.org/a?b=c&d=%20#e",
    "$12.50 + 3% ~ ^5 = `x|y` <tag>",
    "naïve Café-Menü Ångström São Paulo",
    "e\u0301 decomposed, é composed, ẛ̣ compatibility",
    "Straße İstanbul ΑΒΓΔ Σίσυφος ΣΑΣ",
    "Ünïcödé ñandú ČŠŽ đĐ łŁ øØ",
    "ﬁligree ﬀ ½ ² Ⅷ ㎏",
    "東京都 and 北京, 한국어 텍스트, ひらがな カタカナ",
    "漢字kanji漢字",
    "\U00020000\U0002a6d6 \U0002a700 \U0002b820\U0002b821 \U0002b920",
    "豈更車 \U0002f800",
    "शान्ति: हिन्दी में",
    "ภาษาไทย ไม่มีช่องว่าง",
    "العربيَّة مُشَكَّلَة",
    "עִבְרִית עם ניקוד",
    "Việt Nam: tiếng Việt có dấu",
    "Русский: ёлка, Йод, ЩУКА",
    "emoji 👍🏽 👨‍👩‍👧 🇫🇷 ☃",
    "zero\u200bwidth soft\u00adhyphen bom\ufeff joiner\u200d",
    "nul\u0000 replacement\ufffd bell\u0007 delete\u007f",
    "next\u0085line vertical\u000btab form\u000cfeed",
    "nbsp\u00a0here thin\u2009space ideographic\u3000space line\u2028para\u2029end",
    "dashes – — ‒ ― quotes “a” ‘b’ «c» „d“ … ‽ ⸘",
    "punctuation ؟ ، । ॥ 。、！？ ¿¡ § ¶ ·",
    "symbols © ® ™ € £ ¥ ° ± × ÷ ∑ √ ∞ ≠ ≤ → ← ■ ● ★",
    "private\ue000use unassigned\u0378 enclosing\u20dd",
    "[CLS] [SEP] [MASK] [PAD] [UNK] ##ing # #",
    "a" * 100,
    "a" * 101,
    "a" * 99 + "\u0301\u0301\u0301 b",
    "pneumonoultramicroscopicsilicovolcanoconiosis antidisestablishmentarianism",
    "qzxwvjk zzzzqqqq xqxqxq",
    "1234567890 3.14159 1,000,000 2nd 0x1F v1.2.3-rc.4",
    "tabs\tand\r\nline\nends  and   runs",
    "ーｱｲｳ ｆｕｌｌｗｉｄｔｈ ＡＢＣ １２３ ！",
    "\u1100\u1161\u11a8 jamo; \uac01 syllable",
    "word " * 300,
    "Ǆ ǅ ŉ ΐ և ẞ",
    "🙂" * 120,
    "\u302e\u302fmarks \u0903\u093e",
]


def tokens() -> list:
    encode = tokenizer().encode
    return [{"text": text, "ids": encode(text).ids} for text in TEXTS]


# page-orientation: Pillow decodes; the scaling is the definition, written in numpy.


def triangle(size: int, new_size: int) -> np.ndarray:
    """Weights [new size, size] of a triangle filter as wide as the reduction."""
    ratio = size / new_size
    support = max(ratio, 1.0)
    weights = np.zeros((new_size, size))
    for new in range(new_size):
        centre = (new + 0.5) * ratio
        first = min(max(int(np.floor(centre - support)), 0), size - 1)
        last = min(max(int(np.ceil(centre + support)), first + 1), size)
        distances = np.abs(np.arange(first, last) - (centre - 0.5)) / support
        row = np.maximum(1 - distances, 0)
        weights[new, first:last] = row / row.sum()
    return weights


def page(path: Path) -> np.ndarray:
    """A page as the model takes it, f32 [1, 3, 224, 224]."""
    picture = np.asarray(Image.open(path).convert("RGB"), np.float64)
    height, width = picture.shape[:2]
    scale = 256 / min(height, width)
    rows, columns = triangle(height, round(height * scale)), triangle(width, round(width * scale))
    scaled = np.einsum("yh,hwc,xw->yxc", rows, picture, columns, optimize=True)
    scaled = np.floor(scaled.clip(0, 255) + 0.5)
    top, left = (scaled.shape[0] - 224) // 2, (scaled.shape[1] - 224) // 2
    square = scaled[top : top + 224, left : left + 224] / 255
    square = (square - [0.485, 0.456, 0.406]) / [0.229, 0.224, 0.225]
    return square.transpose(2, 0, 1)[None].astype(np.float32)


def page_orientation() -> list:
    model = session("orientation.onnx")

    def answer(path: Path) -> dict:
        probabilities = model.run(None, {"x": page(path)})[0][0]
        best = int(probabilities.argmax())
        return {
            "rotation": 90 * best,
            "confidence": float(probabilities[best]),
            "probabilities": {str(90 * at): float(p) for at, p in enumerate(probabilities)},
        }

    samples = [(f"{name}.png", "image/png") for name in ("upright", "turned-90", "turned-180")]
    return answers("page-orientation", samples + [("turned-270.jpg", "image/jpeg")], answer)


# voice-activity: silero's own walk over the probabilities, for its default settings.


def resampled(samples: np.ndarray, old: int, new: int) -> np.ndarray:
    """Hann-windowed sinc, six zero crossings to each side, cutoff at 0.99 of the lower Nyquist rate."""
    if old == new:
        return samples
    step = Fraction(old, new)
    cutoff = 0.99 * min(1.0, new / old)
    reach = 6 / cutoff
    result = np.zeros(ceil(len(samples) / step))
    for at in range(len(result)):
        place = float(at * step)
        near = np.arange(max(0, ceil(place - reach)), min(len(samples), int(place + reach) + 1))
        x = (near - place) * cutoff
        weights = cutoff * np.sinc(x) * np.cos(np.pi * x / 12) ** 2
        result[at] = samples[near] @ weights
    return result


def speech_probabilities(model, samples: np.ndarray, rate: int) -> list:
    window, context = (256, 32) if rate == 8000 else (512, 64)
    state = np.zeros((2, 1, 128), np.float32)
    padded = np.concatenate([np.zeros(context), samples, np.zeros(-len(samples) % window)])
    probabilities = []
    for start in range(0, len(padded) - context, window):
        chunk = padded[start : start + context + window].astype(np.float32)[None]
        inputs = {"input": chunk, "state": state, "sr": np.array(rate, np.int64)}
        output, state = model.run(["output", "stateN"], inputs)
        probabilities.append(float(output[0, 0]))
    return probabilities


def speech_segments(probabilities: list, window: int, rate: int, length: int) -> list:
    """[start, end] in samples."""
    found, start, end = [], None, None
    for place, probability in zip(range(0, len(probabilities) * window, window), probabilities):
        if probability >= 0.5:
            end = None
            if start is None:
                start = place
        elif probability < 0.35 and start is not None:
            if end is None:
                end = place
            if place - end >= 0.1 * rate:
                if end - start > 0.25 * rate:
                    found.append([start, end])
                start = end = None
    if start is not None and length - start > 0.25 * rate:
        found.append([start, length])

    margin = int(0.03 * rate)
    for at, segment in enumerate(found):
        if at == 0:
            segment[0] = max(0, segment[0] - margin)
        if at + 1 == len(found):
            segment[1] = min(length, segment[1] + margin)
        else:
            gap = found[at + 1][0] - segment[1]
            half = gap // 2 if gap < 2 * margin else margin
            segment[1] += half
            found[at + 1][0] -= half
    return found


def voice_activity() -> list:
    model = session("silero_vad.onnx")

    def answer(path: Path) -> dict:
        with wave.open(str(path)) as sound:
            rate, channels = sound.getframerate(), sound.getnchannels()
            frames = np.frombuffer(sound.readframes(sound.getnframes()), "<i2") / 32768
        samples = frames.reshape(-1, channels).mean(axis=1)
        known = 8000 if rate == 8000 else 16000
        samples = resampled(samples, rate, known)
        probabilities = speech_probabilities(model, samples, known)
        window = 256 if known == 8000 else 512
        found = speech_segments(probabilities, window, known, len(samples))
        return {
            "segments": [{"start": start / known, "end": end / known} for start, end in found],
            "duration": len(samples) / known,
        }

    names = ["two-sentences.wav", "telephone-8khz.wav", "stereo-11khz.wav", "silence.wav"]
    return answers("voice-activity", [(name, "audio/wav") for name in names], answer)


def walks() -> list:
    """Made-up probabilities in two decimals, and what the walk over them finds."""
    random = np.random.default_rng(11)
    cases = []
    for number in range(24):
        rate, window = ((16000, 512), (8000, 256))[number % 2]
        levels = random.choice([0.05, 0.3, 0.4, 0.55, 0.9], size=30)
        runs = random.integers(1, 14, size=30)
        noise = random.uniform(-0.05, 0.05, size=runs.sum())
        probabilities = (np.repeat(levels, runs) + noise).round(2)[:160].tolist()
        length = len(probabilities) * window - int(random.integers(0, window))
        found = speech_segments(probabilities, window, rate, length)
        cases.append({"rate": rate, "window": window, "length": length,
                      "probabilities": probabilities, "segments": found})
    return cases


FILES = {
    HERE / "file-type.json": file_type,
    HERE / "passthrough-onnx.json": passthrough_onnx,
    HERE / "sentence-embedding.json": sentence_embedding,
    HERE / "page-orientation.json": page_orientation,
    HERE / "voice-activity.json": voice_activity,
    EXAMPLES / "sentence-embedding" / "testdata" / "tokens.json": tokens,
    EXAMPLES / "voice-activity" / "testdata" / "walks.json": walks,
}


def main() -> None:
    for path, make in FILES.items():
        entries = [json.dumps(entry, separators=(",", ":")) for entry in make()]
        path.parent.mkdir(exist_ok=True)
        path.write_text("[\n" + ",\n".join(entries) + "\n]\n")
        print(path.relative_to(WORKSPACE))


if __name__ == "__main__":
    main()
