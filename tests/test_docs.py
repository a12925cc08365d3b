"""The pages a user reads, against the code as it is: links, files, commands, flags, settings and tests they name."""

import ast
import dataclasses
import importlib
import importlib.util
import re
import shlex
import typing
from pathlib import Path

import pytest

from darkhaloscope.experiment import Experiment

REPOSITORY = Path(__file__).resolve().parents[1]
PAGES = [REPOSITORY / "README.md", REPOSITORY / "CHANGELOG.md", *sorted((REPOSITORY / "docs").glob("*.md"))]
PACKAGES = (
    "darkhaloscope", "spark_jobs", "training", "evaluation", "emr", "bootstrap", "local_spark", "benchmarks",
)  # fmt: skip
FILES = [f for top in PACKAGES for f in (REPOSITORY / top).rglob("*") if f.suffix in {".py", ".sh"}]
SOURCES = {f: f.read_text() for f in FILES}
OF_OTHERS = {
    "--help", "--no-deps", "--system-site-packages", "--nproc_per_node", "--master", "--conf",
    "--py-files", "--packages",
}  # fmt: skip
EVERY_FLAG = {f for text in SOURCES.values() for f in re.findall(r"(--[a-z{][\w{}-]*)", text)} | OF_OTHERS
SHARED = {  # where a command's flags are, beside its own file
    "spark_jobs": ("spark_jobs/arguments.py",),
    "training/train.py": ("training/options.py",),
}
TARGETS = set(re.findall(r"^([a-z-]+):.*##", (REPOSITORY / "Makefile").read_text(), re.MULTILINE))
SETTINGS = {
    name: {f.name for f in dataclasses.fields(section)}
    for name, section in typing.get_type_hints(Experiment).items()
    if dataclasses.is_dataclass(section)
}
FILE = re.compile(rf"(?:{'|'.join(PACKAGES)}|experiments|tests)(?:/[\w.-]+)+\.(?:py|toml|csv|sh|json|md)")


def ticked(text: str) -> list[str]:
    """What stands in backticks, outside blocks of code."""
    return re.findall(r"`([^`\n]+)`", re.sub(r"```.*?```", "", text, flags=re.DOTALL))


def commands(text: str) -> list[str]:
    """Command lines of a page, from blocks of code and from its text, continued lines joined."""
    blocks = re.findall(r"```(?:bash)?\n(.*?)```", text, re.DOTALL)
    lines = [line for block in blocks for line in block.replace("\\\n", " ").splitlines()]
    starts = ("python ", "spark-submit ", "make ", "torchrun ", "bash ")
    given = [line for line in (*map(str.strip, lines), *ticked(text)) if line.startswith(starts)]
    return [line.split("  #")[0].split(" && ")[-1] for line in given]


def source_of(words: list[str]) -> Path | None:
    """The file that a command runs; None where it is none of ours."""
    if "-m" in words[:2]:
        module = words[2]
        if module.split(".")[0] not in PACKAGES:
            return None
        found = importlib.util.find_spec(module)
        assert found is not None, f"no module {module}"
        folder = found.submodule_search_locations
        return Path(folder[0], "__main__.py") if folder else Path(str(found.origin))
    scripts = [w for w in words if w.endswith((".py", ".sh")) and not w.startswith("tests")]
    return REPOSITORY / scripts[0] if scripts else None


def flags_of(source: Path) -> set[str]:
    """Flags that a command's source knows; a name made from parts matches whatever stands there."""
    relative = str(source.relative_to(REPOSITORY))
    more = [f for key, files in SHARED.items() if relative.startswith(key) for f in files]
    text = "".join(SOURCES[p] for p in (source, *(REPOSITORY / f for f in more)))
    return set(re.findall(r"(--[a-z{][\w{}-]*)", text))


def known(flag: str, flags: set[str]) -> bool:
    return flag in flags or any(
        re.fullmatch(re.sub(r"\\\{\w+\\\}", r"\\w+", re.escape(f)), flag) for f in flags
    )


@pytest.mark.parametrize("page", PAGES, ids=lambda p: p.name)
def test_links_and_files_that_a_page_names_are_there(page):
    text = page.read_text()
    for link in re.findall(r"\]\(([^)#:]+?)(?:#[\w-]*)?\)", text):
        assert (page.parent / link).exists(), f"link to {link}"
    for name in filter(FILE.fullmatch, ticked(text)):
        ours = any((top / name).exists() for top in (REPOSITORY, REPOSITORY / "darkhaloscope"))
        assert ours or name == "emr/site.toml", f"file {name}"


@pytest.mark.parametrize("page", PAGES, ids=lambda p: p.name)
def test_commands_of_a_page_exist_and_take_the_flags_they_are_given(page):
    for line in commands(page.read_text()):
        words = shlex.split(line.replace("…", ""), comments=True)
        if words[0] == "make":
            assert {w for w in words[1:] if re.fullmatch("[a-z-]+", w)} <= TARGETS, line
        source = source_of(words)
        if source is None:
            continue
        assert source in SOURCES, f"{line}: no {source}"
        given = {w.split("=")[0] for w in words if w.startswith("--") and len(w) > 2} - OF_OTHERS
        assert not [f for f in given if not known(f, flags_of(source))], line


@pytest.mark.parametrize("page", PAGES, ids=lambda p: p.name)
def test_flags_and_settings_that_a_page_names_are_there(page):
    for name in ticked(page.read_text()):
        if (flag := re.match(r"--[a-z][\w-]*", name)) and not known(flag[0], EVERY_FLAG):
            pytest.fail(f"flag {flag[0]}")
        if (setting := re.match(r"(\w+)\.(\w+)(?: = .*)?$", name)) and setting[1] in SETTINGS:
            assert setting[2] in SETTINGS[setting[1]], f"setting {name}"


def test_the_index_leads_to_every_page():
    index = (REPOSITORY / "docs" / "README.md").read_text()
    pages = {p.name for p in (REPOSITORY / "docs").glob("*.md")}
    assert set(re.findall(r"\]\(([\w-]+\.md)\)", index)) == pages - {"README.md"}


def test_each_known_fault_has_a_test_that_exists():
    rows = [
        r for r in (REPOSITORY / "docs" / "known-faults.md").read_text().splitlines() if r.startswith("| ")
    ]
    rows = [r for r in rows if not re.match(r"\| (fault|in the document) \|", r)]
    assert len(rows) > 60
    folder = REPOSITORY / "tests"
    tests_there = {str(f.relative_to(folder)): f.read_text() for f in folder.rglob("test_*.py")}
    for row in rows:
        tests = re.findall(r"`([\w/]+\.py)::(test_\w+)`", row.rsplit(" | ", 1)[1])
        assert tests, f"no test in: {row}"
        for file, name in tests:
            where = [f for f, text in tests_there.items() if re.search(rf"^def {name}\(", text, re.MULTILINE)]
            assert file in where, f"{file} has no {name}; it is in {where}"


@pytest.mark.parametrize("page", PAGES, ids=lambda p: p.name)
def test_python_on_a_page_imports_what_there_is(page):
    for block in re.findall(r"```python\n(.*?)```", page.read_text(), re.DOTALL):
        for node in ast.walk(ast.parse(block)):
            if isinstance(node, ast.ImportFrom):
                module = importlib.import_module(str(node.module))
                assert not [a.name for a in node.names if not hasattr(module, a.name)], block
