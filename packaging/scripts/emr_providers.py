"""The jar of `bootstrap/emr/providers`: compiled for Java 8, from pinned jars, the same bytes each time.

Called by packaging/scripts/emr-providers: `python emr_providers.py [--once] [JAR]`; tests build once. Members are
sorted, dated 1980 and not compressed, so that two builds by one version of javac are one file; two versions may differ.
"""

from __future__ import annotations

import argparse
import configparser
import os
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

from ringfence_bootstrap.sandbox.artifacts import ensure_jars, parse_jar_list
from ringfence_bootstrap.sandbox.requirements import find_java_home

CHECKOUT = Path(__file__).parents[2]
PROVIDERS = CHECKOUT / "bootstrap/emr/providers"
_JAVA_8 = 52
_EPOCH = (1980, 1, 1, 0, 0, 0)


def version() -> str:
    """setup.cfg's."""
    parser = configparser.ConfigParser()
    parser.read(CHECKOUT / "setup.cfg")
    return parser["metadata"]["version"]


def compile_classes(target: Path) -> None:
    """Compiles for Java 8, its class library too; a warning is an error, and an error ends the program."""
    listed = parse_jar_list("emr-providers", (PROVIDERS / "jars.txt").read_text())
    jars = ensure_jars(listed, os.environ, lambda text: print(text, file=sys.stderr), lambda *_: None)
    path = os.pathsep.join(str(jars / artifact.file_name) for artifact in listed.artifacts)
    # The runtime image has the compiler's module also where no JDK's `javac` is.
    java = [str(find_java_home(os.environ) / "bin/java"), "-XX:TieredStopAtLevel=1"]
    javac = [*java, "--module", "jdk.compiler/com.sun.tools.javac.Main"]
    options = [
        "--release",
        "8",
        "-encoding",
        "UTF-8",
        "-Xlint:all,-options,-classfile",
        "-Werror",
        "-proc:none",
        "-g:none",
    ]
    sources = sorted(str(source) for source in (PROVIDERS / "src").rglob("*.java"))
    done = subprocess.run(
        [*javac, *options, "-d", str(target), "-classpath", path, *sources], capture_output=True, text=True, check=False
    )
    if done.returncode:
        sys.exit(f"emr-providers: javac failed\n{done.stdout}{done.stderr}")


def write_jar(classes: Path, jar: Path) -> None:
    """One jar of everything below `classes`."""
    title = "Implementation-Title: ringfence-emr-providers"
    lines = ("Manifest-Version: 1.0", title, f"Implementation-Version: {version()}")
    members = {"META-INF/MANIFEST.MF": "".join(f"{line}\r\n" for line in (*lines, "")).encode()}
    for file in sorted(classes.rglob("*.class")):
        content = file.read_bytes()
        assert int.from_bytes(content[6:8]) == _JAVA_8, f"{file.name} is not for Java 8"
        members[file.relative_to(classes).as_posix()] = content
    with zipfile.ZipFile(jar, "w", zipfile.ZIP_STORED) as archive:
        for name, content in members.items():
            entry = zipfile.ZipInfo(name, _EPOCH)
            entry.external_attr = 0o644 << 16
            archive.writestr(entry, content)


def build(jar: Path, times: int) -> None:
    """Builds so many times and keeps it when all are the same."""
    jar.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="emr-providers-") as scratch:
        built = []
        for number in range(times):
            classes, one = Path(scratch) / f"classes{number}", Path(scratch) / f"{number}.jar"
            compile_classes(classes)
            write_jar(classes, one)
            built.append(one.read_bytes())
        if len(set(built)) != 1:
            sys.exit("emr-providers: two builds differ")
        jar.write_bytes(built[0])
    print(jar)


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(description="Build the jar of EMR's custom providers.")
    parser.add_argument("--once", action="store_true", help="do not build it a second time to compare")
    default = CHECKOUT / "dist" / f"ringfence-emr-providers-{version()}.jar"
    parser.add_argument("jar", nargs="?", type=Path, default=default)
    arguments = parser.parse_args()
    build(arguments.jar, 1 if arguments.once else 2)


if __name__ == "__main__":
    main()
