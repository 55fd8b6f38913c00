#!/usr/bin/env python3
"""Makes the committed sample inputs of the examples; run again only to change them.

Usage: python3 tests/expected/samples.py

Needs Pillow and numpy, and espeak-ng on the path for the speech.
"""

import subprocess
import tempfile
import wave
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"

PAGE = """\
Minutes of the garden committee

The committee met on Tuesday at seven in the hall. The minutes
of the last meeting were read and approved. Eleven members
were present and three had sent their apologies.

The treasurer reported that the account stands at 412.50 after
the purchase of two ladders and a wheelbarrow. The rent for
the plots will stay as it is for another year.

Several members asked for a second water tap near the north
gate. A plumber has offered to lay the pipe in the spring, if
the members dig the trench. A vote was taken: nine in favour,
one against, one abstention.

The pear trees along the wall suffered from the late frost.
They will be pruned in February, when the sap is low. Whoever
owns a pair of long loppers is asked to bring it along.

The compost bins are full. Please turn the left one before
anything is added, and leave the lid closed against the rats.
The key to the shed hangs again behind the notice board.

The next meeting is on the first Tuesday of next month. The
meeting closed at a quarter past eight.
"""


def pages() -> None:
    """One page of text as it should be, and turned clockwise by each quarter."""
    page = Image.new("L", (620, 877), 250)
    draw = ImageDraw.Draw(page)
    title, _, text = PAGE.partition("\n\n")
    draw.text((60, 60), title, fill=20, font=ImageFont.load_default(26))
    draw.multiline_text((60, 120), text, fill=30, font=ImageFont.load_default(17), spacing=6)
    folder = EXAMPLES / "page-orientation" / "samples"
    # 16 shades are enough for text, and keep the files small.
    shades = page.quantize(16).convert("L")
    shades.save(folder / "upright.png", optimize=True)
    shades.transpose(Image.Transpose.ROTATE_270).save(folder / "turned-90.png", optimize=True)
    shades.transpose(Image.Transpose.ROTATE_180).save(folder / "turned-180.png", optimize=True)
    page.transpose(Image.Transpose.ROTATE_90).save(folder / "turned-270.jpg", quality=40)


def spoken(text: str) -> np.ndarray:
    """Speech at 16 kHz, -1 to 1; the synthesiser gives 11.025 kHz."""
    with tempfile.NamedTemporaryFile(suffix=".wav") as file:
        subprocess.run(["espeak-ng", "-s", "190", "-w", file.name, text], check=True)
        with wave.open(file.name) as sound:
            rate = sound.getframerate()
            samples = np.frombuffer(sound.readframes(sound.getnframes()), "<i2") / 32768
    # Samples for listening only: the far end of the spectrum is cut by a short mean.
    samples = np.convolve(samples, [0.25, 0.5, 0.25], "same")
    places = np.arange(int(len(samples) * 16000 / rate)) * rate / 16000
    return 0.7 * np.interp(places, np.arange(len(samples)), samples)


def write(path: Path, rate: int, channels: list) -> None:
    """Writes 16-bit PCM."""
    frames = np.stack(channels, axis=1)
    with wave.open(str(path), "wb") as sound:
        sound.setnchannels(len(channels))
        sound.setsampwidth(2)
        sound.setframerate(rate)
        sound.writeframes((np.clip(frames, -1, 1) * 32767).round().astype("<i2").tobytes())


def recordings() -> None:
    """Two sentences with silence around, at 16 kHz; the second again at 8 kHz and at 11.025 kHz."""
    folder = EXAMPLES / "voice-activity" / "samples"
    noise = np.random.default_rng(7).normal(0, 0.0005, 16000 * 8)
    first = spoken("The train leaves at noon.")
    second = spoken("Mind the gap, please.")
    pause = np.zeros(6400)
    both = np.concatenate([pause, first, pause, second, pause])
    both += noise[: len(both)]
    write(folder / "two-sentences.wav", 16000, [both])

    one = np.concatenate([pause[:3200], second, pause[:3200]])
    one += noise[: len(one)]
    at = lambda rate: np.interp(np.arange(len(one) * rate // 16000) * 16000 / rate, np.arange(len(one)), one)
    write(folder / "telephone-8khz.wav", 8000, [at(8000)])
    write(folder / "stereo-11khz.wav", 11025, [at(11025), 0.3 * at(11025)])
    write(folder / "silence.wav", 16000, [noise[:8000]])


if __name__ == "__main__":
    pages()
    recordings()
