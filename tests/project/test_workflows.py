"""The workflows run what a developer can run: every step names a nox session or a script that exists.

What else a workflow must keep to (rights, concurrency, times) stands here where actionlint and zizmor do not ask.
"""

from __future__ import annotations

import ast
import re
import shlex
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import yaml
from packaging.requirements import Requirement

ROOT = Path(__file__).resolve().parents[2]
GITHUB = ROOT / ".github"
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
# Has no checkout, so that nothing of a branch is run where there is the right to comment.
WITHOUT_SCRIPTS = "bench-comment.yml"
# What prepares a machine, or hands a file over, is no step of the project.
SETTING_UP = ("python -m pip install", "sudo apt-get update", "sudo apt-get install", "cat")
# What reads the options that a session hands on.
SCRIPTS = {
    "bench": "benchmarks/regressing/command.py", "chaos": "tests/chaos/__main__.py",
    "sanitize": "tests/native/sanitize.py",
}
# The machines that GitHub has.
RUNNERS = {
    "ubuntu-latest": ("linux", "x86_64"), "ubuntu-24.04-arm": ("linux", "aarch64"),
    "macos-15": ("macos", "arm64"), "macos-15-intel": ("macos", "x86_64"),
    "windows-latest": ("windows", "AMD64"), "windows-11-arm": ("windows", "ARM64"),
}
pytestmark = pytest.mark.native_only


def read(path: Path) -> Any:
    return yaml.safe_load(path.read_text(encoding="ascii"))


WORKFLOWS = {path.name: read(path) for path in sorted(GITHUB.glob("workflows/*.yml"))}
ACTIONS = {path.parent.name: read(path) for path in GITHUB.glob("actions/*/*.yml")}


class Step(NamedTuple):
    """A step of a job, and which it is for messages."""

    where: str
    step: dict[str, Any]


def steps() -> Iterator[Step]:
    for name, workflow in WORKFLOWS.items():
        for job, what in workflow["jobs"].items():
            yield from (Step(f"{name}: {job}", step) for step in what["steps"])
    for name, action in ACTIONS.items():
        yield from (Step(name, step) for step in action["runs"]["steps"])


def noxfile() -> ast.Module:
    return ast.parse((ROOT / "noxfile.py").read_text(encoding="ascii"))


def sessions() -> set[str]:
    """The names of the functions that are decorated as sessions."""
    functions = [each for each in noxfile().body if isinstance(each, ast.FunctionDef)]
    return {each.name for each in functions for mark in each.decorator_list if "session" in ast.unparse(mark)}


def constant(name: str) -> Any:
    """What noxfile.py says that name is."""
    (value,) = [
        each.value for each in noxfile().body if isinstance(each, ast.Assign) and ast.unparse(each.targets[0]) == name
    ]
    return ast.literal_eval(value)


def strangers(command: str) -> list[str]:
    """What a line of a step names that is neither there nor set-up; "" if it names nothing at all."""
    words = shlex.split(command, comments=True)
    if command.startswith(SETTING_UP):
        return []
    if words[0] == "nox":
        own = words[1 : words.index("--")] if "--" in words else words[1:]
        assert own[0] == "-s", command
        return [word for word in own[1:] if word not in sessions()] or ([] if own[1:] else [""])
    if words[0] in ("python", "bash"):
        words = words[1:]
    return [] if (ROOT / words[0]).is_file() else [words[0]]


@pytest.mark.parametrize("command", ["nox -s no_such", "nox -s lint no_such", "python no/such.py", "make", "nox -s"])
def test_what_does_not_exist_is_found(command: str) -> None:
    assert strangers(command)


def test_every_step_names_what_exists() -> None:
    found = [
        (where, line)
        for where, step in steps()
        if "run" in step and not where.startswith(WITHOUT_SCRIPTS)
        for line in step["run"].strip().splitlines()
        if strangers(line)
    ]
    assert found == []
    assert sum("run" in step for _, step in steps()) > 15


def test_each_workflow_runs_what_it_is_for() -> None:
    """And every session is run. `test` is what .ci/run does without nox."""
    run: dict[str, set[str]] = {}
    for where, step in steps():
        for words in [line.split() for line in step.get("run", "").splitlines()]:
            if words[0] in ("nox", ".ci/run"):
                named = words[2:words.index("--")] if "--" in words else words[2:]
                run.setdefault(where.partition(":")[0], set()).update(named or words)
    assert run == {
        "ci.yml": {".ci/run", "lint", "types", "docs", "build", "import_time", "next_cpython", "coverage", "sanitize"},
        "integration.yml": {"integration"}, "bench.yml": {"bench"},
        "wheels.yml": {"sdist", "pure_wheel", "wheels", "check_dist"},
        "nightly.yml": {"next_cython", "next_cpython", "zig_wheel", "fuzz", "chaos", "sanitize"},
    }
    # `.ci/run` has what `test` does, and `pythons` wants Debian.
    assert sessions() - set().union(*run.values()) == {"test", "pythons"}


@pytest.mark.parametrize("name", sorted(SCRIPTS))
def test_what_steps_hand_to_a_script_it_takes(name: str) -> None:
    text = (ROOT / SCRIPTS[name]).read_text(encoding="ascii")
    lines = [line for _, step in steps() for line in step.get("run", "").splitlines()]
    handed = [line.partition(" -- ")[2] for line in lines if line.startswith(f"nox -s {name} -- ")]
    options = {option for words in handed for option in re.findall(r"--[\w-]+", words)}
    assert options
    assert {option for option in options if f'add_argument("{option}"' not in text} == set()


def test_what_may_be_skipped_is_there() -> None:
    lines = (ROOT / ".ci" / "allowed_skips.txt").read_text(encoding="ascii").splitlines()
    ids = [line.split("#")[0].strip() for line in lines if not line.startswith("#")]
    assert ids
    for module, _, function in (each.partition("::") for each in ids):
        text = (ROOT / f"{module.replace('.', '/')}.py").read_text(encoding="ascii")
        assert f"def {function.partition('[')[0]}(" in text, function


def test_the_workflow_without_scripts_checks_nothing_out() -> None:
    used = [step.get("uses", "") for where, step in steps() if where.startswith(WITHOUT_SCRIPTS)]
    assert used
    assert not [each for each in used if "checkout" in each or each.startswith("./")]


def test_what_publishes_checks_nothing_out_and_runs_nothing() -> None:
    trusted = [
        (name, job)
        for name, workflow in WORKFLOWS.items()
        for job, what in workflow["jobs"].items()
        if "id-token" in what.get("permissions", {})
    ]
    assert trusted == [("wheels.yml", "publish")]
    job = WORKFLOWS["wheels.yml"]["jobs"]["publish"]
    assert [each.get("uses", "run").partition("@")[0] for each in job["steps"]] == [
        "actions/download-artifact", "pypa/gh-action-pypi-publish",
    ]  # fmt: skip
    assert "github.ref_type == 'tag'" in job["if"]


def test_wheels_are_tried_before_there_is_a_release() -> None:
    """Each week, and with each change of what they are made of."""
    when = WORKFLOWS["wheels.yml"][True]
    assert when["schedule"]
    paths = when["pull_request"]["paths"]
    made_of = ["pyproject.toml", "setup.py", "MANIFEST.in", "fastprod/_core.pyx", *ROOT.glob("fastprod/_native/*.*"),
               *ROOT.glob(".ci/codec_libs.*"), ROOT / ".ci" / "check_wheel.py"]
    assert [each for each in made_of if not any((ROOT / each).match(pattern) for pattern in paths)] == []
    assert [pattern for pattern in paths if not list(ROOT.glob(pattern))] == []


def test_what_is_published_has_attestations() -> None:
    (options,) = [each["with"] for each in WORKFLOWS["wheels.yml"]["jobs"]["publish"]["steps"]
                  if each["uses"].startswith("pypa/gh-action-pypi-publish@")]
    assert options["attestations"] is True


def test_there_is_a_runner_for_each_machine_that_wheels_are_for() -> None:
    jobs = WORKFLOWS["wheels.yml"]["jobs"]
    native = {RUNNERS[runner] for runner in jobs["native"]["strategy"]["matrix"]["runner"]}
    emulated = {("linux", machine) for machine in jobs["emulated"]["strategy"]["matrix"]["architecture"]}
    lines = (ROOT / ".ci" / "build_identifiers.txt").read_text(encoding="ascii").splitlines()
    assert native | emulated == {tuple(line.split()[:2]) for line in lines if not line.startswith("#")}
    assert not native & emulated


def test_every_action_is_pinned_by_its_commit_with_the_version_beside_it() -> None:
    pins: dict[str, set[str]] = {}
    for path in (*GITHUB.glob("workflows/*.yml"), *GITHUB.glob("actions/*/*.yml")):
        for used in re.findall(r"uses: (.+)", path.read_text(encoding="ascii")):
            if used.startswith("./"):
                assert used.rpartition("/")[2] in ACTIONS
                continue
            match = re.fullmatch(r"([\w-]+/[\w-]+)@([0-9a-f]{40}) # (v\d+\.\d+\.\d+)", used)
            assert match, f"{path.name}: {used}"
            pins.setdefault(match[1], set()).add(f"{match[2]} {match[3]}")
    assert {name for name, commits in pins.items() if len(commits) > 1} == set()
    assert len(pins) >= 6


@pytest.mark.parametrize("name", WORKFLOWS)
def test_rights_are_few_and_nothing_runs_for_ever(name: str) -> None:
    workflow = WORKFLOWS[name]
    assert workflow["permissions"] in ({}, {"contents": "read"})
    assert all("timeout-minutes" in job for job in workflow["jobs"].values())
    writes = {f"{job}: {right}" for job, what in workflow["jobs"].items()
              for right, level in what.get("permissions", {}).items() if level == "write"}
    assert writes == {"bench-comment.yml": {"comment: pull-requests"}, "wheels.yml": {"publish: id-token"}}.get(
        name, set()
    )
    # YAML 1.1 reads `on` as true.
    if "workflow_run" not in workflow[True]:
        assert "concurrency" in workflow


def test_the_pythons_that_are_tested_are_those_that_are_promised() -> None:
    """And the free-threaded ones that there are wheels for."""
    promised = {each.rpartition(" ")[2] for each in PROJECT["classifiers"] if re.search(r":: 3\.\d+$", each)}
    built = re.findall(r" cp(3)(\d+t)-", (ROOT / ".ci" / "build_identifiers.txt").read_text(encoding="ascii"))
    jobs = WORKFLOWS["ci.yml"]["jobs"]
    tested = [each for job in ("tests", "newer") for each in jobs[job]["strategy"]["matrix"]["python"]]
    assert sorted(tested) == sorted(promised | {".".join(version) for version in built})


def test_the_releases_of_kafka_are_the_same_everywhere() -> None:
    releases = list(constant("RELEASES"))
    assert WORKFLOWS["integration.yml"]["jobs"]["kafka"]["strategy"]["matrix"]["release"] == releases
    text = (ROOT / "tests" / "testing" / "test_releases.py").read_text(encoding="ascii")
    (known,) = re.findall(r"NEWEST_PRODUCE = (\{.*\})", text)
    assert list(ast.literal_eval(known)) == releases
    assert all((ROOT / test).exists() for test in constant("ON_A_RELEASE"))


def test_the_sessions_that_are_promised_are_there() -> None:
    assert sessions() >= {"test", "lint", "types", "sanitize", "fuzz", "bench", "docs", "build"}


def test_pre_commit_calls_what_there_is() -> None:
    (repository,) = read(ROOT / ".pre-commit-config.yaml")["repos"]
    assert repository["repo"] == "local"
    assert [each["id"] for each in repository["hooks"] if strangers(each["entry"])] == []


def test_what_dependabot_looks_after_is_there() -> None:
    kept = read(GITHUB / "dependabot.yml")["updates"]
    assert {each["package-ecosystem"] for each in kept} == {"pip", "github-actions"}
    for each in kept:
        for folder in each.get("directories", [each.get("directory")]):
            assert (ROOT / folder.lstrip("/")).is_dir()
    (pip,) = [each for each in kept if each["package-ecosystem"] == "pip"]
    # .ci has the pins of what is linked into wheels.
    assert set(pip["directories"]) == {"/", "/.ci"}


def test_the_commands_of_contributing_exist() -> None:
    text = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    table = text.partition("## Ten commands")[2].partition("\n## ")[0]
    commands = re.findall(r"^\| `([^`]+)` \|", table, re.MULTILINE)
    assert len(commands) == 10
    assert [each for each in commands if strangers(each)] == []


def test_sessions_install_only_what_is_stated_in_the_extras() -> None:
    extras = PROJECT["optional-dependencies"]
    stated = {Requirement(line).name for lines in extras.values() for line in lines}
    calls = re.findall(r"\binstall\(session, (.*)\)", (ROOT / "noxfile.py").read_text(encoding="ascii"))
    asked = {name for call in calls for name in re.findall(r'"([\w-]+)"', call)}
    assert asked
    assert asked <= stated
