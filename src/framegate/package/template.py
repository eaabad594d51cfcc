"""Projects of new drivers: the templates of each language, rendered under a name.

The templates lie in `templates/driver/` at the repository's root, and beside this module in a wheel. Each is a working
driver called `mydriver` for one small protocol, the same in every language; parts that languages share are in `any/`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from functools import cache
from keyword import iskeyword
from pathlib import Path
from typing import Literal, TypeAlias, get_args

from framegate.contract.errors import Misconfigured
from framegate.contract.law import law_folder
from framegate.package.toolchain import RUST_WASM

Language: TypeAlias = Literal["python", "c", "go", "rust", "js"]
LANGUAGES: tuple[Language, ...] = get_args(Language)
NAME_CHARACTERS_MAX = 40
_NAME = re.compile(r"[a-z][a-z0-9_]*")
_PARTS: Mapping[tuple[Language, bool], tuple[str, ...]] = {
    ("python", False): ("python-protocol", "python"),
    ("python", True): ("python-protocol", "python-wasm"),
    ("c", False): ("c",),
    ("c", True): ("c", "c-wasm"),
    ("go", True): ("go",),
    ("rust", False): ("rust",),
    ("rust", True): ("rust", "rust-wasm"),
    ("js", True): ("js",),
}
"""Folders of a template, by language and whether it becomes WASM; later ones win. Go and JavaScript always do."""
_LAW = {"c": ("driver.h",), "c-wasm": ("driver.h", "driver.wit")}
_PLACES = {"gitignore": ".gitignore", "ci.yml": ".github/workflows/driver.yml"}
"""Files that would be taken for the repository's own if they lay there under their name."""


def render(name: str, language: Language, arch: str, *, is_wasm: bool = False) -> Mapping[str, str]:
    """Files of a new driver's project: path -> text.

    arch    what native files are built for, as driver.toml has it: "x86_64-linux"
    raises  Misconfigured E4680 - no name that every language can use
    """
    if not _NAME.fullmatch(name) or len(name) > NAME_CHARACTERS_MAX or iskeyword(name):
        text = f'"{name}" cannot name a driver; write a-z first, then a-z, 0-9 or _, at most {NAME_CHARACTERS_MAX}'
        text += ", and no word of a language"
        raise Misconfigured(text, code="E4680")
    is_wasm = is_wasm or language in {"go", "js"}
    parts = _PARTS[language, is_wasm]
    files = _files("any")
    about = ""
    for part in parts:
        files |= _files(part)
        about = files.pop("README.md", about)
        files |= {law: (law_folder() / law).read_text("utf-8") for law in _LAW.get(part, ())}
    files["README.md"] = _files("any")["README.md"].replace("@language@", about.strip())
    tokens = {"mydriver": name, "@arch@": arch, "@install@": _install(parts, is_wasm=is_wasm)}
    return {_PLACES.get(path, path): _filled(text, tokens) for path, text in files.items()}


def _install(parts: Sequence[str], *, is_wasm: bool) -> str:
    """What a fresh machine with the usual compilers needs beside them."""
    tools = {"python-wasm": " componentize-py", "c-wasm": " ziglang", "rust-wasm": f" && rustup target add {RUST_WASM}"}
    return "pip install framegate" + "[wasm]" * is_wasm + "".join(tools.get(part, "") for part in parts)


def write_project(folder: Path, files: Mapping[str, str]) -> None:
    """Write a project into a folder that does not exist yet.

    raises Misconfigured E4681 - it exists, or cannot be written
    """
    try:
        folder.mkdir(parents=True)
        for path, text in files.items():
            file = folder / path
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(text, encoding="utf-8")
    except OSError as error:
        reason = (error.strerror or str(error)).lower()
        text = f"{error.filename}: cannot be written ({reason}); choose another name, or another folder with --into"
        raise Misconfigured(text, code="E4681") from error


@cache
def template_folder() -> Path:
    """Where the templates are."""
    installed = Path(__file__).with_name("templates")
    return installed if installed.is_dir() else Path(__file__).resolve().parents[3] / "templates" / "driver"


def _files(part: str) -> dict[str, str]:
    """Texts of one folder of the templates; what a build or an interpreter left there is passed over."""
    folder = template_folder() / part
    texts = (path for path in sorted(folder.rglob("*")) if path.is_file() and "__pycache__" not in path.parts)
    return {path.relative_to(folder).as_posix(): path.read_text("utf-8") for path in texts}


def _filled(text: str, tokens: Mapping[str, str]) -> str:
    for token, value in tokens.items():
        text = text.replace(token, value)
    return text
