"""`edge opcua ...`: which certificates are trusted, and our own.

    trust ls                      certificates of others: trusted, of issuers, and turned away
    trust add THUMBPRINT|FILE     trust one that was turned away (the first digits will do), or one of a file
    trust rm THUMBPRINT           forget it
    cert ls                       our own: file and end, for servers that have to trust it
    cert renew                    put it aside; the next connection makes a new one

An application of the gateway has a folder `pki` each: the drivers share one, a server of the gateway has its own. A
last word names which, where a file is added: `trust add FILE PLACE`. Changes count at the next connection.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

from framegate.contract.errors import Misconfigured
from framegate_plugins.opcua.pki import FILE_BYTES_MAX, Pki, Seen, certificate_from, days_left, subject_of, thumbprint

DIGITS_MIN: Final = 6
_WRONG, _FAILED = "E2750", "E2751"
_PLACE: Final = "pki"
Row = Mapping[str, object]


def run(words: Sequence[str], home: Path) -> list[Row]:
    """Rows to show.

    raises Misconfigured E2750 - other words are wanted; E2751 - no such certificate, or a file that cannot be used
    """
    match list(words):
        case ["trust", "ls"]:
            return [_row(place, seen) for place, pki in _places(home) for seen in pki.seen()]
        case ["trust", "add", what]:
            return _add(home, what, _PLACE)
        case ["trust", "add", what, place]:
            return _add(home, what, place)
        case ["trust", "rm", what]:
            place, pki, seen = _find(home, what)
            pki.remove(seen)
            return [{**_row(place, seen), "state": "forgotten"}]
        case ["cert", "ls"]:
            return [row for place, pki in _places(home) for row in _own(place, pki)]
        case ["cert", "renew"]:
            renewed = [row for place, pki in _places(home) for row in _own(place, pki)]
            for _, pki in _places(home):
                pki.renew()
            return [{**row, "state": "put aside"} for row in renewed]
    text = "edge opcua trust ls | trust add THUMBPRINT|FILE | trust rm THUMBPRINT | cert ls | cert renew"
    raise Misconfigured(f"{' '.join(words) or 'nothing'} is not understood; write {text}", code=_WRONG)


def _places(home: Path) -> list[tuple[str, Pki]]:
    """Every folder of certificates, by its path below the home; that of the drivers first."""
    found = [home / _PLACE, *sorted(home.glob(f"*/{_PLACE}"))]
    return [(str(folder.relative_to(home)), Pki(folder)) for folder in found if folder.is_dir()]


def _add(home: Path, what: str, place: str) -> list[Row]:
    file = Path(what)
    if file.is_file():
        pki = Pki(home / place)
        try:
            with file.open("rb") as stream:
                print_ = pki.trust(stream.read(FILE_BYTES_MAX))
        except (OSError, ValueError) as error:
            raise Misconfigured(f"{file}: no certificate that can be used ({error})", code=_FAILED) from error
    else:
        place, pki, seen = _find(home, what)
        print_ = pki.trust(seen.path.read_bytes())
    return [_row(place, seen) for seen in pki.seen() if seen.thumbprint == print_ and seen.state == "trusted"]


def _find(home: Path, what: str) -> tuple[str, Pki, Seen]:
    """The one certificate whose thumbprint begins so."""
    digits = what.replace(":", "").replace(" ", "").upper()
    if len(digits) < DIGITS_MIN:
        raise Misconfigured(
            f"{what}: no file, and too short for a thumbprint; {DIGITS_MIN} digits at least", code=_FAILED
        )
    found = [
        (place, pki, seen) for place, pki in _places(home) for seen in pki.seen() if seen.thumbprint.startswith(digits)
    ]
    if len({seen.thumbprint for _, _, seen in found}) != 1:
        what_is = "more than one certificate begins so" if found else "no such certificate"
        raise Misconfigured(f"{what}: {what_is}; `edge opcua trust ls` lists them", code=_FAILED)
    return found[0]


def _row(place: str, seen: Seen) -> Row:
    return {
        "state": seen.state,
        "thumbprint": seen.thumbprint,
        "subject": seen.subject,
        "uri": seen.uri,
        "ends": f"{seen.not_after:%Y-%m-%d}",
        "days": days_left(seen.not_after),
        "place": place,
    }


def _own(place: str, pki: Pki) -> list[Row]:
    path = pki.folder / "own" / "cert.der"
    try:
        certificate = certificate_from(path.read_bytes())
    except (OSError, ValueError):
        return []
    seen = Seen("own", thumbprint(certificate), subject_of(certificate), "", certificate.not_valid_after_utc, path)
    return [{**_row(place, seen), "uri": str(path)}]
