"""Gets code out of what people paste: a chat message, a web page, a terminal, an e-mail."""

import html
import re

FENCED = re.compile(r"^(```|~~~)[^\n]*\n(.*?)^\1[ \t]*$", re.MULTILINE | re.DOTALL)
PREFORMATTED = re.compile(r"<pre[^>]*>(.*?)</pre>", re.IGNORECASE | re.DOTALL)
TAG = re.compile(r"<[^>]+>")
# The prompts of Python, of a notebook and of a shell.
PROMPT = re.compile(r"^(?:>>> |\.\.\. |In \[\d+\]: |\$ )", re.MULTILINE)
QUOTE = re.compile(r"^(?:> ?)+", re.MULTILINE)
LINE_NUMBER = re.compile(r"^ *\d+[:|] ?", re.MULTILINE)
INVISIBLE = dict.fromkeys(map(ord, "\u200b\u200c\u200d\u2060\ufeff\u00ad"))


def code_in(text: str) -> str:
    """The code alone, with plain line ends and without what the paste brought along."""
    text = text.replace("\r\n", "\n").replace("\r", "\n").translate(INVISIBLE)
    if all_lines(QUOTE, text):
        text = QUOTE.sub("", text)
    if fenced := FENCED.findall(text):
        text = "\n".join(code for _, code in fenced)
    elif marked := PREFORMATTED.findall(text):
        text = html.unescape(TAG.sub("", "\n".join(marked)))
    if all_lines(LINE_NUMBER, text):
        text = LINE_NUMBER.sub("", text)
    text = PROMPT.sub("", text).replace("\u00a0", " ")
    return "\n".join(line.rstrip() for line in text.strip().split("\n"))


def all_lines(pattern: re.Pattern, text: str) -> bool:
    """Whether each line that says anything begins so: one that does by chance is left alone."""
    lines = [line for line in text.split("\n") if line.strip()]
    return bool(lines) and all(pattern.match(line) for line in lines)
