"""One rule for what a command says of a user's mistake: a line with the file's name, and status 1."""

import importlib
import inspect
import pkgutil

import pytest

import evaluation
from darkhaloscope.errors import Explained

# A study runs these commands, and has no path of its own to be wrong about.
MODULES = [m.name for m in pkgutil.walk_packages(evaluation.__path__, "evaluation.") if "study" not in m.name]

COMMANDS = {
    "anchors.__main__": ["--checkpoint", "{}", "--metrics", "{}"],
    "calibrate": ["--scores", "{}"],
    "candidates": ["{}"],
    "compare": ["{}", "{}"],
    "evaluate": ["--scores", "{}"],
    "find": ["--model", "{}", "--survey", "{}", "10.0", "5.0"],
    "gates.__main__": ["--data", "{}", "--checkpoint", "{}"],
    "grades": ["merge", "{}", "--key", "{}"],
    "mine": ["--scores", "{}", "--known-lenses", "{}"],
    "probe": ["--data", "{}", "--checkpoint", "{}", "--real", "{}"],
    "reference": ["--scores", "{}"],
    "report": ["{}"],
    "score": ["--checkpoint", "{}", "--data", "{}"],
    "selection_function": ["--scores", "{}", "--metrics", "{}"],
}


@pytest.mark.parametrize("name", COMMANDS)
def test_a_path_that_is_not_there_is_named_in_one_line(name, tmp_path, capsys):
    missing = str(tmp_path / "not-there")
    out = [] if name == "report" else ["--out", str(tmp_path / "out")]
    arguments = [a.format(missing) for a in COMMANDS[name]]
    assert importlib.import_module(f"evaluation.{name}").main([*arguments, *out]) == 1
    said = capsys.readouterr().err
    assert said.startswith(f"{name.split('.')[0]}: ") and "not-there" in said and "Traceback" not in said


def test_every_command_is_asked_and_every_error_of_theirs_explains_itself():
    made = [importlib.import_module(name) for name in MODULES]
    assert {m.__name__.removeprefix("evaluation.") for m in made if hasattr(m, "main")} == set(COMMANDS)
    errors = {
        c
        for m in made
        for c in vars(m).values()
        if inspect.isclass(c) and c.__name__.endswith("Error") and c.__module__.startswith("evaluation")
    }
    assert len(errors) > 5 and [c for c in errors if not issubclass(c, Explained)] == []
