"""The set-up scripts: what they print when a step fails, and the lock that they can install from."""

import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest
from packaging.markers import Marker
from packaging.requirements import Requirement

ROOT = Path(__file__).parent.parent
LOCK = (ROOT / "scripts" / "requirements.lock").read_text(encoding="utf-8")


def locked() -> list[tuple[str, str, str, int]]:
    """Name, version, marker and number of hashes of each entry."""
    entry = re.compile(r"^([\w.-]+)==(\S+) ; (.+?) \\\n((?:    --hash=sha256:[0-9a-f]{64}(?: \\)?\n)+)", re.M)
    return [(name, version, marker, hashes.count("--hash")) for name, version, marker, hashes in entry.findall(LOCK)]


def requirements() -> list[Requirement]:
    text = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    lists = re.findall(r"^(?:dependencies|test) = \[\n(.*?)^\]", text, re.M | re.S)
    assert len(lists) == 2
    return [Requirement(line) for part in lists for line in re.findall(r'^    "([^"]+)"', part, re.M)]


def test_every_entry_of_the_lock_has_hashes_and_names_no_place():
    assert len(locked()) == len(re.findall(r"^[\w.-]+==", LOCK, re.M)) > 60
    assert "://" not in LOCK


@pytest.mark.parametrize("python", ["3.10", "3.11", "3.12", "3.13"])
def test_the_lock_holds_an_allowed_release_of_each_requirement(python):
    machine = {"python_version": python, "python_full_version": f"{python}.1", "sys_platform": "linux"}
    machine |= {"platform_machine": "x86_64"}
    found = {name: version for name, version, marker, _ in locked() if Marker(marker).evaluate(machine)}
    for wanted in requirements():
        assert wanted.specifier.contains(found[wanted.name]), f"{wanted}: {found[wanted.name]}"


@pytest.mark.parametrize("bad", ["pytorch-lightning 2.6.2", "pytorch-lightning 2.6.3", "hydra-core 1.3.5"])
def test_releases_known_to_be_bad_are_excluded(bad):
    name, version = bad.split()
    (wanted,) = (one for one in requirements() if one.name == name)
    assert not wanted.specifier.contains(version)


def test_a_failed_installation_is_told_in_a_few_lines_with_its_log(tmp_path):
    shutil.copytree(ROOT / "scripts", tmp_path / "scripts")
    (tmp_path / "pyproject.toml").write_text('[project]\nname = "none"\n')  # no version: pip refuses it
    (tmp_path / "scripts" / "requirements.lock").write_text("no-such-package-of-ganrun==1 --hash=sha256:" + 64 * "0")
    environment = os.environ | {"GANRUN_LOCKED": "1", "PIP_NO_INDEX": "1"}
    done = subprocess.run(["scripts/environment"], cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert done.returncode == 1 and not done.stdout
    lines = done.stderr.splitlines()
    assert lines[:2] == ["making .venv ...", "installing the locked packages, about 5.5 GB ..."]
    assert lines[-1] == f"failed; all that it printed is in {tmp_path}/.venv/install.log"
    assert len(lines) <= 8 and "no-such-package-of-ganrun" in (tmp_path / ".venv" / "install.log").read_text()
