"""Extract the prose of the repository's files and check it against the glossary.

Prose is documentation, comments, docstrings, messages, log events, the names of tests, pages and descriptions.
Commands, code spans, SQL and values are not prose. Run ``python -m tests.prose [PATH…]`` to see every finding.
"""

from __future__ import annotations

import ast
import io
import re
import subprocess
import sys
import tokenize
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

ROOT = Path(__file__).parents[1]
GLOSSARY = ROOT / "docs" / "glossary.md"
#: Generated or third-party files (rendered charts, recordings, scripts, lock files), and the rules themselves.
EXCLUDED = re.compile(
    r"/(golden|recorded|snapshots|vendor)/|^requirements/.*\.txt$|^sample_data/|(^|/)LICENSE$"
    r"|^docs/glossary\.md$|^tests/(unit/test_)?prose\.py$"
)
#: Vague words, and how often they may occur in 10,000 words of prose.
LIMITS = {
    r"\b(tell|tells|told)\b": 4.4,
    r"\b(whoever|nobody|somebody|anybody)\b|\bwhat is\b": 1.4,
}
_WORD = re.compile(r"[^\W\d_]+(?:'[^\W\d_]+)?")
#: Keys of YAML and JSON whose values are shown to people.
_TEXT_KEY = re.compile(r"""^\s*(?:- )?["']?(?:description|summary|title|message|help|name|text)["']?:\s*(.+?),?$""")
_SQL = re.compile(r"\s*(SELECT|WITH|INSERT|UPDATE|DELETE|CREATE|ALTER|DROP|COPY|GRANT|REVOKE|SET|TRUNCATE|LOCK)\b")
#: A string with fewer words is a key, a path or a format rather than a message.
_MIN_WORDS = 3


class Text(NamedTuple):
    """A passage of prose: the line where it starts (counted from 1) and its text."""

    line: int
    text: str


class Violation(NamedTuple):
    """An expression that should not occur in prose: where it stands and what the glossary suggests."""

    path: str
    line: int
    found: str
    instead: str

    def __str__(self) -> str:
        """Format the finding as compilers do, so that editors can jump to it."""
        return f"{self.path}:{self.line}: '{self.found}': say {self.instead}"


@cache
def dont_say() -> dict[re.Pattern[str], str]:
    """Read the glossary's list.

    Returns:
        For each expression to avoid, the terms to use.
    """
    table = GLOSSARY.read_text(encoding="utf-8").partition("| say | don't say |")[2]
    rows = [re.split(r"(?<!\\)\|", line)[1:3] for line in table.splitlines() if line.startswith("| ") and "`" in line]
    return {
        re.compile(rf"\b(?:{pattern})\b".replace(r"\|", "|").replace(" ", r"\s+"), re.IGNORECASE): say.strip()
        for say, avoid in rows
        for pattern in re.findall(r"`([^`]+)`", avoid)
    }


def markdown(source: str) -> Iterator[Text]:
    """Yield the text of a Markdown page without code blocks, code spans and addresses, a paragraph at a time."""
    source = re.sub(r"^ *```.*?^ *```$", _blank, source, flags=re.MULTILINE | re.DOTALL)
    source = re.sub(r"<!--.*?-->", _blank, source, flags=re.DOTALL)
    source = re.sub(r"\]\([^)]*\)", "]", source)
    source = re.sub(r"``?[^`]+``?", lambda match: "`" + _blank(match), source)
    yield from _paragraphs(source)


def _blank(match: re.Match[str]) -> str:
    """Return the line breaks of a match, so that what replaces it keeps the line numbers."""
    return "\n" * match[0].count("\n")


def _paragraphs(source: str) -> Iterator[Text]:
    line = 1
    for part in re.split(r"(\n\s*\n|\n(?=[-|#]))", source):
        if part.strip():
            yield Text(line, part)
        line += part.count("\n")


def python(source: str) -> Iterator[Text]:
    """Yield comments, docstrings, messages, and the names of tests, functions and classes of a Python module."""
    comments = (
        Text(token.start[0], token.string.lstrip("#: "))
        for token in tokenize.generate_tokens(io.StringIO(source).readline)
        if token.type == tokenize.COMMENT
    )
    # Comments of several lines are one text, so that an expression that is broken over two lines is found.
    yield from _join(comments)
    tree = ast.parse(source)
    parts = {id(part) for node in ast.walk(tree) if isinstance(node, ast.JoinedStr) for part in node.values}
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            words = re.sub(r"(?<=[a-z])(?=[A-Z])", " ", node.name).replace("_", " ")
            yield Text(node.lineno, words.strip())
        elif isinstance(node, ast.JoinedStr):
            yield from _message(
                node.lineno, "".join(str(part.value) if isinstance(part, ast.Constant) else "`" for part in node.values)
            )
        elif isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in parts:
            yield from _message(node.lineno, node.value)


def _join(texts: Iterable[Text]) -> Iterator[Text]:
    lines: list[Text] = []
    for text in texts:
        if lines and text.line != lines[-1].line + 1:
            yield Text(lines[0].line, "\n".join(one.text for one in lines))
            lines = []
        lines.append(text)
    if lines:
        yield Text(lines[0].line, "\n".join(one.text for one in lines))


def _message(line: int, text: str) -> Iterator[Text]:
    text = re.sub(r"``?[^`]+``?", "`", text)
    if len(_WORD.findall(text)) >= _MIN_WORDS and " " in text.strip() and not _SQL.match(text):
        yield Text(line, text)


def template(source: str) -> Iterator[Text]:
    """Yield a template's text, its comments, and the attributes that browsers show or read out."""
    shown = re.findall(r'(?:title|alt|aria-label|placeholder|content)="([^"]+)"', source)
    yield Text(1, "\n".join(shown))
    source = re.sub(r"\{#-?|-?#\}|\{\{-?\s*/\*|\*/\s*-?\}\}", " ", source)
    for pattern in (r"<(script|style)\b.*?</\1>", r"\{%.*?%\}", r"\{\{.*?\}\}", r"<[^>]*>"):
        source = re.sub(pattern, _blank, source, flags=re.DOTALL)
    yield from _paragraphs(source)


def script(source: str) -> Iterator[Text]:
    """Yield the comments and messages of JavaScript or CSS."""
    for match in re.finditer(r"/\*.*?\*/|(?<!:)//[^\n]*|\"[^\"\n]+\"|`[^`]+`", source, re.DOTALL):
        yield from _message(source.count("\n", 0, match.start()) + 1, match[0].strip('/*`"'))


def commented(source: str) -> Iterator[Text]:
    """Yield the comments of a file that marks them with ``#``, Helm's comments, and values that people are shown."""
    lines = source.splitlines()
    yield from _join(
        Text(number, match[1])
        for number, line in enumerate(lines, 1)
        if (match := re.search(r"(?:^|\s)#+(?:@|\s--|\s)+([^\n]*)", line))
    )
    for match in re.finditer(r"/\*.*?\*/", source, re.DOTALL):
        yield Text(source.count("\n", 0, match.start()) + 1, match[0])
    for number, line in enumerate(lines, 1):
        if match := _TEXT_KEY.match(line):
            yield from _message(number, re.sub(r"\{\{.*?\}\}", "`", match[1]))


READERS: dict[str, Callable[[str], Iterator[Text]]] = {
    ".md": markdown,
    ".py": python,
    ".html": template,
    ".j2": template,
    ".svg": template,
    ".txt": template,
    ".js": script,
    ".css": script,
    **dict.fromkeys((".yaml", ".yml", ".tpl", ".toml", ".sh", ".json", ".lua", "Dockerfile", "Makefile"), commented),
}


def tracked_files() -> list[str]:
    """List the repository's files, and new files that git does not ignore, as paths relative to its root."""
    listed = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        check=True,
        capture_output=True,
        text=True,
    )
    return [name for name in listed.stdout.splitlines() if (ROOT / name).is_file()]


def files() -> list[str]:
    """List the repository's files that hold prose, as paths relative to its root."""
    return [name for name in tracked_files() if not EXCLUDED.search(name) and _reader(name)]


def _reader(name: str) -> Callable[[str], Iterator[Text]] | None:
    path = Path(name)
    return READERS.get(path.suffix or path.name)


@cache
def prose(name: str) -> tuple[Text, ...]:
    """Extract a file's prose.

    Args:
        name: The file's path, relative to the repository's root.
    """
    reader = _reader(name)
    return tuple(reader((ROOT / name).read_text(encoding="utf-8"))) if reader else ()


def findings(name: str) -> Iterator[Violation]:
    """Yield expressions in a file that the glossary's list excludes."""
    for text in prose(name):
        for pattern, instead in dont_say().items():
            for match in pattern.finditer(text.text):
                line = text.line + text.text.count("\n", 0, match.start())
                yield Violation(name, line, " ".join(match[0].split()), instead)


def occurrences(pattern: str, name: str) -> Iterator[Violation]:
    """Yield where a vague word occurs in a file."""
    for text in prose(name):
        for match in re.finditer(pattern, text.text, re.IGNORECASE):
            yield Violation(
                name, text.line + text.text.count("\n", 0, match.start()), match[0], "exactly what is meant"
            )


def count_words(names: Iterable[str]) -> int:
    """Count the words of prose in files."""
    return sum(len(_WORD.findall(text.text)) for name in names for text in prose(name))


def main(prefixes: list[str]) -> None:
    """Print every finding, and the frequencies of vague words, of the files whose paths start with a prefix."""
    chosen = [name for name in files() if not prefixes or name.startswith(tuple(prefixes))]
    for name in chosen:
        for finding in findings(name):
            print(finding)  # noqa: T201
        for pattern in LIMITS:
            for finding in occurrences(pattern, name):
                print(finding)  # noqa: T201
    words = count_words(chosen)
    for pattern, limit in LIMITS.items():
        found = sum(1 for name in chosen for _ in occurrences(pattern, name))
        print(f"{pattern}: {found} in {words:,} words, {found / max(words, 1) * 10_000:.1f} per 10,000; limit {limit}")  # noqa: T201


if __name__ == "__main__":
    main(sys.argv[1:])
