"""Make everything that is made from the law: the protobuf face and the memory of field numbers.

    python tools/generate.py            write src/framegate/contract/_generated/ and contract/frame.fields.lock
    python tools/generate.py --check    write nothing; exit 1 when a file is stale or the law was broken

The field lock only grows: a number that ever existed keeps its name and type, and is never given again. A field
that leaves frame.proto or changes there is refused, not recorded. The generated file is registered in protobuf's pool
under its full path, so that another package's `frame.proto` can live in the same process.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path

import grpc_tools
from google.protobuf import descriptor_pb2
from grpc_tools import protoc

ROOT = Path(__file__).resolve().parents[1]
LAW = ROOT / "contract"
SOURCE = ROOT / "src"
PACKAGE = "framegate/contract/_generated"
FILES = ("frame_pb2.py", "frame_pb2.pyi")
LOCK = LAW / "frame.fields.lock"
LOCK_HEAD = "# Every field and enum value that ever existed: message number name type. It only grows.\n"

Numbers = Mapping[tuple[str, int], str]
"""(message or enum, number) -> "name type"."""


class LawBroken(Exception):
    """frame.proto changed in a way that would break receivers."""


def compile_law(target: Path) -> descriptor_pb2.FileDescriptorProto:
    """Run protoc into `target`; returns the description of frame.proto."""
    described = target / "frame.bin"
    failed = protoc.main(
        [
            "protoc",
            f"--proto_path={PACKAGE}={LAW}",
            f"--proto_path={Path(grpc_tools.__file__).with_name('_proto')}",
            f"--plugin=protoc-gen-mypy={Path(sys.executable).with_name('protoc-gen-mypy')}",
            f"--python_out={target}",
            f"--mypy_out=quiet:{target}",
            f"--descriptor_set_out={described}",
            f"{PACKAGE}/frame.proto",
        ]
    )
    if failed:
        raise LawBroken("protoc refused contract/frame.proto; its message is above")
    return descriptor_pb2.FileDescriptorSet.FromString(described.read_bytes()).file[0]


def numbers_of(law: descriptor_pb2.FileDescriptorProto) -> Numbers:
    """Every number in use now."""
    return dict(_numbers(law))


def _numbers(law: descriptor_pb2.FileDescriptorProto) -> Iterator[tuple[tuple[str, int], str]]:
    field = descriptor_pb2.FieldDescriptorProto
    for message in law.message_type:
        for entry in message.field:
            many = "repeated " if entry.label == field.LABEL_REPEATED else ""
            kind = entry.type_name.rpartition(".")[2] or field.Type.Name(entry.type).removeprefix("TYPE_").lower()
            yield (message.name, entry.number), f"{entry.name} {many}{kind}"
    for enum in law.enum_type:
        for value in enum.value:
            yield (enum.name, value.number), f"{value.name} enum"


def read_lock(text: str) -> Numbers:
    """Numbers remembered by a lock file."""
    rows = (line.split(" ", 2) for line in text.splitlines() if line and not line.startswith("#"))
    return {(message, int(number)): rest for message, number, rest in rows}


def extend_lock(locked: Numbers, current: Numbers) -> str:
    """Text of the new lock.

    raises LawBroken - a number was removed, renamed, retyped or given again
    """
    for (message, number), was in locked.items():
        now = current.get((message, number))
        if now != was:
            raise LawBroken(
                f"{message} field {number} was `{was}` and is now `{now}`; numbers and fields stay for ever"
            )
    rows = [f"{message} {number} {rest}\n" for (message, number), rest in sorted({**locked, **current}.items())]
    return LOCK_HEAD + "".join(rows)


def make() -> Mapping[Path, str]:
    """Every generated file and its text."""
    with tempfile.TemporaryDirectory() as folder:
        law = compile_law(Path(folder))
        made = {SOURCE / PACKAGE / name: (Path(folder) / PACKAGE / name).read_text("utf-8") for name in FILES}
    made[SOURCE / PACKAGE / "__init__.py"] = '"""Made by tools/generate.py from contract/; not edited."""\n'
    locked = read_lock(LOCK.read_text("utf-8")) if LOCK.exists() else {}
    made[LOCK] = extend_lock(locked, numbers_of(law))
    return made


def main() -> int:
    parser = argparse.ArgumentParser(description="Make the generated files of the contract.")
    parser.add_argument("--check", action="store_true", help="write nothing; fail when a file is stale")
    check = parser.parse_args().check
    try:
        made = make()
    except LawBroken as broken:
        sys.stderr.write(f"{broken}\n")
        return 1
    stale = [path for path, text in made.items() if not path.exists() or path.read_text("utf-8") != text]
    for path in stale:
        if check:
            sys.stderr.write(f"{path.relative_to(ROOT)} is stale; run `python tools/generate.py`\n")
        else:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text := made[path], "utf-8")
            sys.stdout.write(f"{path.relative_to(ROOT)}: {len(text.splitlines())} lines\n")
    return 1 if check and stale else 0


if __name__ == "__main__":
    sys.exit(main())
