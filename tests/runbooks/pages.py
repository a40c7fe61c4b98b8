"""Parse the pages of ``runbooks/``: their sections, links and commands.

``cluster_commands`` are the commands that need a real cluster; other tests compare them with their programs.
"""

from __future__ import annotations

import re
import shlex
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "runbooks"
INDEX = FOLDER / "README.md"
PAGES = sorted(path for path in FOLDER.glob("*.md") if path != INDEX)
ALL = [*PAGES, INDEX, FOLDER / "playbooks" / "README.md"]

#: Where a block's commands run: on any machine with the stack's addresses, against a cluster, or in runbooks/playbooks.
KINDS = ("local", "cluster", "playbook")
#: A code span that begins with one of these is a command, too.
PROGRAMS = ("ansible-playbook", "argocd", "aws", "helm", "kubectl", "make", "pulumi", "rates")

_FENCE = re.compile(r"^```(?P<info>.*)\n(?P<text>(?:.*\n)*?)```$", re.MULTILINE)
_SPAN = re.compile(r"`([^`\n]+)`")
_COMMENT = re.compile(r"(?m)(?:^|\s)#\s.*$")
_SEPARATORS = {"|", "||", "&", "&&", ";", "\n", "(", ")", "()"}
_KEYWORDS = {"do", "then", "while", "if", "!", "{"}
_BUILTINS = {"}", "[", ".", "cd", "done", "echo", "export", "fi", "local", "read", "test"}


class Block(NamedTuple):
    """A block of commands."""

    page: str
    section: str
    kind: str
    text: str


class Command(NamedTuple):
    """A call of a program."""

    page: str
    kind: str
    words: tuple[str, ...]
    #: What it reads from a here-string.
    given: str = ""

    def __str__(self) -> str:
        return f"{self.page}: {shlex.join(self.words)[:100]}"


def sections(path: Path) -> dict[str, str]:
    """Return a page's sections by their headings, in order."""
    parts = re.split(r"^## (.+)$", path.read_text(), flags=re.MULTILINE)
    return dict(zip(parts[1::2], parts[2::2], strict=True))


def blocks(path: Path) -> Iterator[Block]:
    """Yield a page's blocks of commands of all kinds."""
    for section, text in sections(path).items():
        for fence in _FENCE.finditer(text):
            yield Block(path.stem, section, fence["info"].removeprefix("sh "), fence["text"])


def spans(path: Path) -> Iterator[str]:
    """Yield the commands and the SQL that a page names within a sentence."""
    for span in _SPAN.findall(_FENCE.sub("", path.read_text()).replace("\n  ", " ")):
        program, _, rest = span.partition(" ")
        if program in (*PROGRAMS, "select") and rest:
            yield span


def split(text: str, page: str, kind: str) -> Iterator[Command]:
    """Yield the programs' calls in a piece of shell, those within ``$(…)`` too.

    It supports the shell syntax of the pages: pipes, lists, loops, here-strings, comments.
    """
    lexer = shlex.shlex(_COMMENT.sub("", text.replace("\\\n", " ")), posix=True, punctuation_chars="|&;<>()\n")
    lexer.whitespace = " \t\r"
    lexer.whitespace_split = True
    lexer.commenters = ""
    words: list[str] = []
    given, redirected = "", ""
    for token in [*lexer, "\n"]:
        if redirected:
            given, redirected = (token if redirected == "<<<" else given), ""
        elif set(token) <= set("<>&") and token not in _SEPARATORS:
            redirected = token
        elif token in _SEPARATORS or not token.strip("\n"):
            while words and words[0] in _KEYWORDS:
                words.pop(0)
            if words and words[0] not in _BUILTINS and "=" not in words[0]:
                yield Command(page, kind, tuple(words), given)
            words, given = [], ""
        else:
            words.append(token)
    for inner in re.findall(r"\$\(((?:[^()]|\([^()]*\))*)\)", text):
        yield from split(inner, page, kind)


def commands(path: Path) -> Iterator[Command]:
    """Yield every call on a page, from its blocks and its sentences."""
    for block in blocks(path):
        yield from split(block.text, path.stem, block.kind)
    for span in spans(path):
        if span.startswith("select "):
            yield Command(path.stem, "local", ("rates_psql",), span)
            continue
        kind = {"rates": "local", "ansible-playbook": "playbook"}.get(span.split()[0], "cluster")
        yield from split(span, path.stem, kind)


def cluster_commands() -> list[Command]:
    """Return the calls that need a cluster or AWS, from all pages, each once.

    Words in capitals (``POD``, ``BATCH``, ``NAMESPACE``) are placeholders.
    """
    found = (command for path in ALL for command in commands(path) if command.kind == "cluster")
    return list({(command.words, command.given): command for command in found}.values())
