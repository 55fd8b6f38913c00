#!/usr/bin/env python3
"""Writes upright.json and turned.json: a line of text as the model takes it, and turned by 180°.

Needs Pillow. The model takes colour images of any size as [n, 3, height, width], from -1 (black)
to 1 (white); for a small file the pixels here are grey and only -1, 0 or 1.
"""

import json
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont

line = Image.new("L", (96, 48), "white")
ImageDraw.Draw(line).text((2, 8), "Firebox", fill="black", font=ImageFont.load_default(size=24))

for name, angle in [("upright", 0), ("turned", 180)]:
    pixels = line.rotate(angle).load()
    plane = [[round(pixels[x, y] / 127.5 - 1) for x in range(96)] for y in range(48)]
    body = json.dumps({"x": [[plane, plane, plane]]}, separators=(",", ":"))
    Path(__file__).with_name(f"{name}.json").write_text(body + "\n")
