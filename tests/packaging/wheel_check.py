"""Build the sdist and the wheel, and try the wheel where nothing of this checkout can be seen.

Guarantees, when it exits with 0: both archives carry every file of the package exactly once, byte for byte, the schemas
and `py.typed` included; installed with its core dependencies alone, which bring no agent framework along, every room
imports; the schemas can be read as package data; the console scripts run.
Does not: test behaviour, or install any extra; what an adapter does with its framework is for the tests.
Runs as a script (`make wheel-test`), for it needs packages to install and the `build` tool.
"""

import json
import subprocess
import sys
import sysconfig
import tarfile
import tempfile
import venv
import zipfile
from collections import Counter
from collections.abc import Mapping
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PACKAGE = "ccs_stream"
SCRIPTS = ("ccs-stream", "ccs-replay", "ccs-benchmark")
# What the installed package is asked to run; -I keeps the current folder and the environment's variables out of the
# search for modules, so only what was installed can be found.
READ_SCHEMAS = """
import importlib.resources, json
def below(folder, path):
    for each in folder.iterdir():
        if each.is_dir():
            yield from below(each, f"{path}/{each.name}")
        elif each.name.endswith(".avsc"):
            yield f"{path}/{each.name}", each.read_text("utf-8")
print(json.dumps(dict(below(importlib.resources.files("ccs_stream.schemas"), "ccs_stream/schemas"))))
"""
FIND_FRAMEWORKS = """
import importlib.util, sys
found = [name for name in sys.argv[1:] if importlib.util.find_spec(name)]
sys.exit(f"installed without being asked for: {found}" if found else 0)
"""
FRAMEWORKS = ("agents", "autogen_core", "crewai", "langchain", "langchain_core", "langgraph")


def tree_files(folder: Path, prefix: str) -> dict[str, bytes]:
    """Read what a folder holds, through its symbolic links, without what running it left behind."""
    found: dict[str, bytes] = {}
    for path in sorted(folder.iterdir()):
        name = f"{prefix}/{path.name}"
        if path.is_dir() and path.name != "__pycache__":
            found |= tree_files(path, name)
        elif path.is_file():
            found[name] = path.read_bytes()
    return found


def require_same(what: str, expected: Mapping[str, bytes], names: list[str], actual: Mapping[str, bytes]) -> None:
    problems = [f"twice: {name}" for name, count in Counter(names).items() if count > 1]
    problems += [f"missing: {name}" for name in expected.keys() - actual.keys()]
    problems += [f"unexpected: {name}" for name in actual.keys() - expected.keys()]
    problems += [f"differs: {name}" for name in expected.keys() & actual.keys() if expected[name] != actual[name]]
    if problems:
        sys.exit(f"the {what} is not the tree:\n  " + "\n  ".join(sorted(problems)))
    print(f"the {what} carries the {len(expected)} files of {PACKAGE}")


def check_wheel(wheel: Path, expected: Mapping[str, bytes]) -> None:
    with zipfile.ZipFile(wheel) as archive:
        names = [name for name in archive.namelist() if ".dist-info/" not in name]
        require_same("wheel", expected, names, {name: archive.read(name) for name in names})


def check_sdist(sdist: Path, expected: Mapping[str, bytes]) -> None:
    with tarfile.open(sdist) as archive:
        contents: dict[str, bytes] = {}
        names: list[str] = []
        for member in archive.getmembers():
            inside = member.name.partition("/")[2]
            if member.issym() or member.islnk():
                sys.exit(f"the sdist holds a link, which not every system can unpack: {inside}")
            if inside.startswith(f"{PACKAGE}/") and (stream := archive.extractfile(member)):
                names.append(inside)
                contents[inside] = stream.read()
    require_same("sdist", expected, names, contents)


def run(*command: str | Path, cwd: Path) -> str:
    result = subprocess.run([str(part) for part in command], cwd=cwd, capture_output=True, text=True, check=False)
    if result.returncode:
        sys.exit(f"failed with {result.returncode}: {' '.join(map(str, command))}\n{result.stdout}{result.stderr}")
    return result.stdout


def try_installed(wheel: Path, outside: Path, expected: Mapping[str, bytes]) -> None:
    home = outside / "venv"
    venv.create(home, with_pip=True)
    places = sysconfig.get_paths("venv", vars={"base": str(home), "platbase": str(home)})
    python = Path(places["scripts"]) / "python"
    run(python, "-m", "pip", "install", "--quiet", "-c", ROOT / "constraints.txt", wheel, cwd=outside)
    rooms = sorted({name.split("/")[1] for name in expected if name.count("/") == 2 and name.endswith("/__init__.py")})
    for room in rooms:
        run(python, "-I", "-c", f"import {PACKAGE}.{room}", cwd=outside)
    print(f"{len(rooms)} rooms import with the core dependencies alone")
    run(python, "-I", "-c", FIND_FRAMEWORKS, *FRAMEWORKS, cwd=outside)
    installed = tree_files(Path(places["purelib"]) / PACKAGE, PACKAGE)
    require_same("installed package", expected, list(installed), installed)
    schemas = {name: body.decode() for name, body in expected.items() if name.endswith(".avsc")}
    if json.loads(run(python, "-I", "-c", READ_SCHEMAS, cwd=outside)) != schemas:
        sys.exit("the schemas read as package data are not those of the tree")
    print(f"{len(schemas)} schemas read as package data")
    for script in SCRIPTS:
        run(Path(places["scripts"]) / script, "--help", cwd=outside)
    print(f"{', '.join(SCRIPTS)} run")


def main() -> None:
    expected = tree_files(ROOT / PACKAGE, PACKAGE)
    with tempfile.TemporaryDirectory(prefix="ccs-stream-wheel-") as folder:
        outside = Path(folder)
        # Without arguments `build` makes the wheel from the sdist, so the wheel proves the sdist complete.
        run(sys.executable, "-m", "build", "--outdir", outside / "dist", ROOT, cwd=ROOT)
        (sdist,) = (outside / "dist").glob("*.tar.gz")
        (wheel,) = (outside / "dist").glob("*.whl")
        check_sdist(sdist, expected)
        check_wheel(wheel, expected)
        try_installed(wheel, outside, expected)
    print("The wheel is good.")


if __name__ == "__main__":
    main()
