"""The repository around the package: links, versions, public names, texts, imports, make."""

from __future__ import annotations

import ast
import importlib
import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

import slt_gym
from slt_gym.envs.registration import list_env_ids

REPOSITORY = Path(__file__).resolve().parents[1]
PACKAGE = REPOSITORY / "slt_gym"

# The public names: a change here is a change for everybody's scripts, and goes into CHANGELOG.md.
API = {
    "slt_gym": ["__version__", "create_tracker", "list_trackers"],
    "slt_gym.data": [
        "AugmentationConfig",
        "Clip",
        "ImageSequence",
        "Sequence",
        "SequenceDataset",
        "augment_clip",
        "draw_clip",
        "list_datasets",
        "open_dataset",
        "sample_clip",
        "sample_clip_pysot",
        "sample_pair",
        "whole_clip",
    ],
    "slt_gym.envs": [
        "TrackingEnv",
        "TrackingVectorEnv",
        "action_to_box",
        "box_to_action",
        "draw_overlay",
        "make_sb3_env",
    ],
    "slt_gym.cuda_ops": ["deform_conv2d", "deform_roi_pool", "depthwise_xcorr", "prroi_pool"],
    "slt_gym.agents": [
        "SLT",
        "BehaviourCloning",
        "Proposals",
        "ReferenceReplayBuffer",
        "ReplayEnvCallback",
        "SiamAttnPolicy",
        "SiamRPNppPolicy",
        "Tracker",
        "TrackerActorCriticPolicy",
        "TrackerFeaturesExtractor",
        "TrackerNetwork",
        "TrackerPolicy",
        "TrDiMPPolicy",
        "TransTPolicy",
        "create_tracker",
        "list_trackers",
        "load_weights",
        "pretrain",
        "register_tracker",
        "save_weights",
    ],
    "slt_gym.evaluation": ["Report", "evaluate", "load_results", "score"],
}

# The rooms that each room may import from, besides itself and the package's lone modules. The
# package itself (``from slt_gym import create_tracker``) counts as ``agents``.
BELOW = {
    "geometry": set(),
    "data": {"geometry"},
    "envs": {"geometry", "data"},
    "cuda_ops": set(),
    "agents": {"geometry", "data", "envs", "cuda_ops"},
    "evaluation": {"geometry", "data", "envs", "cuda_ops", "agents"},
    "cli": {"geometry", "data", "envs", "cuda_ops", "agents", "evaluation"},
}
LONE_MODULES = {"errors", "version"}


@pytest.mark.parametrize("room", ["agents", "envs", "cuda_ops"])
def test_top_level_links_lead_into_the_package(room: str) -> None:
    link = REPOSITORY / room
    assert link.is_symlink()
    assert link.readlink() == Path("slt_gym") / room
    assert link.is_dir()


def test_texts_carry_the_packages_version() -> None:
    citation = (REPOSITORY / "CITATION.cff").read_text("utf-8")
    assert re.findall(r"^version: (\S+)$", citation, re.MULTILINE) == [slt_gym.__version__]
    changelog = (REPOSITORY / "CHANGELOG.md").read_text("utf-8")
    assert re.findall(r"^## \[(.+?)\]", changelog, re.MULTILINE)[0] == slt_gym.__version__


@pytest.mark.parametrize("module", API)
def test_public_names_are_frozen(module: str) -> None:
    package = importlib.import_module(module)
    assert sorted(package.__all__) == sorted(API[module])
    for name in package.__all__:
        assert getattr(package, name) is not None
    assert set(package.__all__) <= set(dir(package))


def read_snippets() -> Iterator[tuple[str, str]]:
    for path in [REPOSITORY / "README.md", *sorted((REPOSITORY / "docs").glob("*.md"))]:
        found = re.findall(r"^```python\n(.*?)^```$", path.read_text("utf-8"), re.M | re.S)
        for number, code in enumerate(found):
            yield f"{path.name}-{number}", code


SNIPPETS = dict(read_snippets())


@pytest.mark.parametrize("name", SNIPPETS)
def test_snippets_name_objects_that_exist(name: str) -> None:
    tree = ast.parse(SNIPPETS[name], name)
    modules: dict[str, object] = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                modules[alias.asname or alias.name] = importlib.import_module(alias.name)
        elif isinstance(node, ast.ImportFrom):
            assert node.module is not None
            source = importlib.import_module(node.module)
            for alias in node.names:
                assert hasattr(source, alias.name), f"{node.module} has no {alias.name}"
    assert modules or "import" in SNIPPETS[name]
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
            module = modules.get(node.value.id)
            assert module is None or hasattr(module, node.attr), ast.unparse(node)


def test_readme_has_snippets() -> None:
    assert sum(name.startswith("README.md") for name in SNIPPETS) >= 4


@pytest.mark.parametrize("text", ["README.md", "docs/environments.md"])
def test_tables_list_the_registered_ids(text: str) -> None:
    rows = re.findall(r"^\| `(SLTTrack-\S+)`", (REPOSITORY / text).read_text("utf-8"), re.M)
    assert rows == list_env_ids()


def test_every_logged_key_is_explained() -> None:
    code = (PACKAGE / "agents" / "slt.py").read_text("utf-8")
    logged = set(re.findall(r'record\(\s*"(\w+/\w+)"', code))
    assert len(logged) >= 10
    page = (REPOSITORY / "docs" / "slt.md").read_text("utf-8")
    rows = [line.split("|")[1] for line in page.splitlines() if line.startswith("| ")]
    assert logged <= set(re.findall(r"`(\w+/\w+)`", " ".join(rows)))


def test_relative_links_lead_somewhere() -> None:
    texts = [*REPOSITORY.glob("*.md"), *(REPOSITORY / "docs").glob("*.md")]
    checked = 0
    for text in texts:
        for target in re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", text.read_text("utf-8")):
            assert (text.parent / target).exists(), f"{text.name}: {target}"
            checked += 1
    assert checked >= 10


def test_no_file_holds_a_developers_path() -> None:
    git = ["git", "ls-files", "--cached", "--others", "--exclude-standard", "-z"]
    if shutil.which("git") is None or not (REPOSITORY / ".git").exists():
        pytest.skip("needs a git checkout, to tell the repository's files from others")
    listed = subprocess.run(git, cwd=REPOSITORY, capture_output=True, check=True).stdout
    files = [REPOSITORY / os.fsdecode(name) for name in listed.split(b"\0") if name]
    assert REPOSITORY / "README.md" in files
    # Homes and workspaces: nothing that a reader's machine would have.
    pattern = re.compile(rb"(?<![\w.~-])(?:/(?:home|Users|root|work)/\w|[A-Z]:\\Users\\)")
    guilty = [
        f"{path.relative_to(REPOSITORY)}: {match.group()!r}"
        for path in files
        if path.is_file() and (match := pattern.search(path.read_bytes()))
    ]
    assert guilty == []


def imported_rooms(path: Path) -> Iterator[tuple[str, int]]:
    """Yield the rooms that a module imports from, with the line, wherever the import stands."""
    package = ["slt_gym", *path.relative_to(PACKAGE).parts[:-1]]
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.Import):
            targets = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) + 1 - node.level] if node.level else []
            module = [*base, node.module] if node.module else base
            targets = [".".join([*module, alias.name]) for alias in node.names]
        else:
            continue
        for target in targets:
            parts = target.split(".")
            if parts[0] == "slt_gym":
                part = parts[1] if len(parts) > 1 else ""
                if part not in LONE_MODULES:
                    yield part if part in BELOW else "agents", node.lineno


def test_imports_run_one_way() -> None:
    wrong, edges = [], set()
    for path in sorted(PACKAGE.rglob("*.py")):
        room = path.relative_to(PACKAGE).parts[0]
        if room not in BELOW:  # slt_gym/__init__.py opens the house
            continue
        for target, line in imported_rooms(path):
            edges.add((room, target))
            if target != room and target not in BELOW[room]:
                wrong.append(f"{path.relative_to(REPOSITORY)}:{line} imports from {target}")
    assert wrong == []
    assert {("data", "geometry"), ("envs", "data"), ("agents", "envs"), ("cli", "agents")} <= edges
    rooms = {path.parent.name for path in PACKAGE.glob("*/__init__.py")}
    assert rooms <= set(BELOW)


# A Python that makes environments of itself, and writes down what it is asked to do.
FAKE_PYTHON = """#!/bin/sh
log="$FAKE_LOG"
case "$*" in
    *version_info*) exit "${FAKE_OLD:-0}" ;;
    --version) echo "Python 3.8.1" ;;
    "-m venv "*) mkdir -p "$3/bin" && cp "$0" "$3/bin/python" ;;
    "-m pip install -e"*) echo "$*" >>"$log"; exit "${FAKE_PIP:-0}" ;;
    "-c import"*) exit "${FAKE_IMPORT:-0}" ;;
    *) echo "$*" >>"$log" ;;
esac
"""


class Make:
    """Runs the Makefile in a folder of its own, with :data:`FAKE_PYTHON`."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.log = folder / "log"
        shutil.copy(REPOSITORY / "Makefile", folder)
        (folder / "pyproject.toml").touch()
        self.python = folder / "fake-python"
        self.python.write_text(FAKE_PYTHON)
        self.python.chmod(0o755)

    def __call__(self, *words: str, **fakes: str) -> tuple[int, list[str], str]:
        """Return the exit status, what Python was asked, and make's output."""
        self.log.write_text("")
        environment = {"PATH": os.environ["PATH"], "FAKE_LOG": str(self.log), **fakes}
        command = ["make", f"PYTHON={self.python}", *words]
        done = subprocess.run(
            command,
            cwd=self.folder,
            env=environment,
            capture_output=True,
            text=True,
            check=False,
            stdin=subprocess.DEVNULL,
        )
        return done.returncode, self.log.read_text().splitlines(), done.stdout + done.stderr


@pytest.fixture
def make(tmp_path: Path) -> Make:
    if os.name != "posix" or shutil.which("make") is None:
        pytest.skip("needs make and a POSIX shell")
    return Make(tmp_path)


INSTALL, UPGRADE = "-m pip install -e .", "-m pip install pip>=22"
TRAIN = "examples/train_slt_transt.py"
PYTEST = "-m pytest -n 2 --dist loadfile"


def test_make_installs_once_and_hands_arguments_on(make: Make) -> None:
    code, asked, _ = make("train", "ARGS=--seed 1")
    assert (code, asked) == (0, [UPGRADE, INSTALL, f"{TRAIN} --seed 1"])
    assert make("train")[1] == [TRAIN]
    assert make("test")[1] == [f"{INSTALL}[test]", PYTEST]
    assert make("test-fast")[1] == [f"{PYTEST} -m not slow"]
    assert make("lint")[1] == ["-m ruff check .", "-m ruff format --check .", "-m mypy"]
    assert make("docs")[1] == [f"{INSTALL}[docs]", "-m mkdocs build --strict"]
    vot = [f"{INSTALL}[vot]", "-m pytest tests/cli/test_cli_trax.py"]
    assert make("test-vot")[1] == vot


def test_make_installs_again_when_the_dependencies_change(make: Make) -> None:
    make("test")
    later = (make.folder / ".venv" / ".installed-test").stat().st_mtime + 10
    os.utime(make.folder / "pyproject.toml", (later, later))
    assert make("test")[1][:2] == [INSTALL, f"{INSTALL}[test]"]


def test_failed_install_leaves_no_stamp(make: Make) -> None:
    make("test")
    stamps = [make.folder / ".venv" / name for name in (".installed", ".installed-test")]
    assert all(stamp.exists() for stamp in stamps)
    later = stamps[1].stat().st_mtime + 10
    os.utime(make.folder / "pyproject.toml", (later, later))
    assert make("train", FAKE_PIP="1")[0] != 0
    assert not stamps[0].exists()


@pytest.mark.parametrize("failure", [{"FAKE_PIP": "1"}, {"FAKE_IMPORT": "1"}])
def test_failed_install_is_tried_again(make: Make, failure: dict[str, str]) -> None:
    code, asked, output = make("train", **failure)
    assert code != 0
    assert asked == [UPGRADE, INSTALL]
    assert ("torchvision" in output) is ("FAKE_IMPORT" in failure)
    assert make("train")[:2] == (0, [INSTALL, TRAIN])


def test_old_python_is_refused_with_a_reason(make: Make) -> None:
    code, asked, output = make("train", FAKE_OLD="1")
    assert code != 0
    assert asked == []
    assert "needs Python 3.10 or newer" in output
    assert "Python 3.8.1" in output
    assert not (make.folder / ".venv").exists()


def test_clean_keeps_the_runs(make: Make) -> None:
    make("train")
    (make.folder / "runs").mkdir()
    (make.folder / "docs" / "__pycache__").mkdir(parents=True)
    assert make("clean")[0] == 0
    left = sorted(path.name for path in make.folder.iterdir())
    assert left == ["Makefile", "docs", "fake-python", "log", "pyproject.toml", "runs"]
    assert not list((make.folder / "docs").iterdir())
