"""Makes the manual pages that man(1) shows out of docs/*.N.md, where N is the section.

    python packaging/man.py build/man       or: make man

The pages keep to a part of Markdown: headings, paragraphs, lists, tables, blocks of code. In a list, an item
that begins with a line of code only has that line as its term, and what follows explains it.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from pathlib import Path

from markdown_it import MarkdownIt
from markdown_it.token import Token

from microtorrd import __version__

DOCS = Path(__file__).parents[1] / "docs"
PAGE = re.compile(r"(?P<name>[\w.-]+?)\.(?P<section>[1-8])\.md")
TITLE = re.compile(r"(?P<name>[\w.-]+)\(\d\): (?P<about>.+)")


def main() -> int:
    """Write all pages below the named directory, as man(1) looks for them: `man1/mtorrctl.1`."""
    if len(sys.argv) != 2:
        print("usage: man.py DIRECTORY", file=sys.stderr)
        return 2
    for source, name, section in pages():
        target = Path(sys.argv[1]) / f"man{section}" / f"{name}.{section}"
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(roff(source.read_text(), section))
        print(target)
    return 0


def pages() -> Iterator[tuple[Path, str, str]]:
    """The sources, each with the name of its page and the section."""
    for source in sorted(DOCS.glob("*.md")):
        found = PAGE.fullmatch(source.name)
        if found is not None:
            yield source, found["name"], found["section"]


def roff(markdown: str, section: str) -> str:
    """A page in the language of man(7)."""
    tokens = MarkdownIt("commonmark").enable("table").parse(markdown)
    page = Page(section)
    page.blocks(tokens)
    return "\n".join(page.lines) + "\n"


class Page:
    """A page that grows from top to bottom."""

    def __init__(self, section: str) -> None:
        self.lines: list[str] = []
        self._section = section
        self._numbers: list[int | None] = []  # of each list: the next number, or None for bullets

    def blocks(self, tokens: list[Token]) -> None:
        """All blocks, one after the other."""
        at = 0
        while at < len(tokens):
            at = self._block(tokens, at)

    def _block(self, tokens: list[Token], at: int) -> int:
        """One block; where the next one begins."""
        token = tokens[at]
        match token.type:
            case "heading_open":
                self._heading(token.tag, tokens[at + 1])
                return at + 3
            case "paragraph_open":
                self.lines += [".PP", *text_lines(tokens[at + 1])]
                return at + 3
            case "fence" | "code_block":
                self._code(token.content)
            case "bullet_list_open" | "ordered_list_open":
                self._numbers.append(1 if token.type.startswith("ordered") else None)
                if len(self._numbers) > 1:
                    self.lines.append(".RS")
            case "bullet_list_close" | "ordered_list_close":
                self._numbers.pop()
                if self._numbers:
                    self.lines.append(".RE")
            case "list_item_open":
                return self._item(tokens, at + 1)
            case "table_open":
                return self._table(tokens, at)
            case "html_block" | "list_item_close":
                pass
            case other:
                raise ValueError(f"no manual page has a {other}: {token.content!r}")
        return at + 1

    def _heading(self, tag: str, inline: Token) -> None:
        text = inline.content
        if tag == "h1":
            title = TITLE.fullmatch(text)
            assert title is not None, f"a page begins with NAME(N): what it is, not {text!r}"
            name = title["name"]
            head = f'.TH "{name.upper()}" {self._section} "" "microtorrd {__version__}"'
            about = escaped(title["about"])
            self.lines += ["'\\\" t", head, ".SH NAME", f"{escaped(name)} \\- {about}"]
        elif tag == "h2":
            self.lines.append(f'.SH "{escaped(text.upper())}"')
        elif tag == "h3":
            self.lines.append(f'.SS "{escaped(text)}"')
        else:
            self.lines += [".PP", f"\\fB{escaped(text)}\\fR"]

    def _code(self, content: str) -> None:
        self.lines += [".PP", ".RS 4", ".nf", *(guarded(escaped(line)) for line in content.splitlines())]
        self.lines += [".fi", ".RE"]

    def _item(self, tokens: list[Token], at: int) -> int:
        """A list item up to its first paragraph's end; what else is in it follows as blocks."""
        inline = tokens[at + 1]
        lines = text_lines(inline)
        number = self._numbers[-1]
        if number is not None:
            self.lines.append(f".IP {number}. 4")
            self._numbers[-1] = number + 1
        elif is_term(inline):
            self.lines.append(".TP")
        else:
            self.lines.append(".IP \\(bu 2")
        self.lines += lines
        return at + 3

    def _table(self, tokens: list[Token], at: int) -> int:
        rows: list[list[str]] = []
        while tokens[at].type != "table_close":
            if tokens[at].type == "tr_open":
                rows.append([])
            elif tokens[at].type == "inline":
                rows[-1].append("\n".join(text_lines(tokens[at])))
            at += 1
        if not any(rows[0]):
            del rows[0]
        # The last column takes what is left of the line.
        formats = " ".join(["lt"] * (len(rows[0]) - 1) + ["ltx"])
        self.lines += [".PP", ".TS", "tab(\t);", f"{formats}."]
        for row in rows:
            last = f"T{{\n{row[-1]}\nT}}" if row[-1] else ""
            self.lines.append("\t".join([*row[:-1], last]))
        self.lines.append(".TE")
        return at + 1


def is_term(inline: Token) -> bool:
    """Does an item begin with a line of code only?"""
    first: list[str] = []
    for child in inline.children or []:
        if child.type == "softbreak":
            return bool(first) and first[0] == "code_inline"
        first.append(child.type)
    return False


def text_lines(inline: Token) -> list[str]:
    """Text with its marks, line by line as it is written."""
    text = ""
    for child in inline.children or []:
        match child.type:
            case "text":
                text += escaped(child.content)
            case "code_inline":
                text += f"\\fB{escaped(child.content)}\\fR"
            case "strong_open":
                text += "\\fB"
            case "em_open":
                text += "\\fI"
            case "strong_close" | "em_close":
                text += "\\fR"
            case "softbreak" | "hardbreak":
                text += "\n"
            case "link_open" | "link_close" | "html_inline":
                pass
            case other:
                raise ValueError(f"no manual page has a {other}: {child.content!r}")
    return [guarded(line) for line in text.split("\n")]


def escaped(text: str) -> str:
    """What roff would take for its own, and hyphens that somebody may want to copy."""
    return text.replace("\\", "\\e").replace("-", "\\-").replace("…", "...").replace('"', "\\(dq")


def guarded(line: str) -> str:
    """A line that begins with a dot or an apostrophe is a request, unless something stands before it."""
    return f"\\&{line}" if line.startswith((".", "'")) else line


if __name__ == "__main__":
    sys.exit(main())
