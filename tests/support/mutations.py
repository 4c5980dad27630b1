"""Seeded damage to files, and the readers it is tried on: `test_fuzz` runs a few hundred, `benchmarks/fuzz.py` more."""

from __future__ import annotations

import io
import json
import random
import shutil
import struct
import tarfile
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
from PIL import Image

from genbench.errors import GenbenchError
from genbench.experiment.run import Component, Run, run_of_record
from genbench.reporting.csv_json import tidy_csv, tidy_json
from genbench.storage.bundle import unpack, write_tar
from genbench.storage.results import group_labels, rows_of_measurements
from genbench.storage.schema import SCHEMA, MetricsFile, RunFile, decode
from genbench_celeba import read_partition
from genbench_torchvision import idx_values

ODD: tuple[Any, ...] = (
    *(None, True, False, 0, -1, 2, 2**63, 10**400, 1e308, 5e-324, "", "0", "nan", "../../x", "a\0b", "\ud800"),
    *("é" * 300, [], {}, [[]], {"": {}}, "<script>", "\\input{x}", "=1+1", "[red]", "\x1b[31m"),
)  # fmt: skip
TOKENS = (
    *(b"NaN", b"-Infinity", b"1e999", b"null", b"true", b'"', b"{", b"}", b"[", b"]", b",", b":", b"\\ud800", b"\xff"),
    *(b"\0", b"\n", b"9" * 5000, b"[" * 2000, b'{"a":' * 500, b"-0", b"\xef\xbb\xbf", b"../", b"PK\x05\x06", b"\r"),
)


def damaged(data: bytes, draw: random.Random) -> bytes:
    """The bytes with one to four faults: flipped bits, cuts, repeats, foreign tokens, pieces moved or overwritten."""
    changed = bytearray(data)
    for _ in range(draw.choice((1, 1, 2, 4))):
        at, size = draw.randrange(len(changed) + 1), draw.choice((1, 2, 4, 16, 200))
        match draw.randrange(7):
            case 0 if at < len(changed):
                changed[at] ^= 1 << draw.randrange(8)
            case 1:
                del changed[at:]
            case 2:
                del changed[at : at + size]
            case 3:
                changed[at:at] = changed[at : at + size]
            case 4:
                changed[at:at] = draw.choice(TOKENS)
            case 5:
                changed[at : at + 4] = struct.pack(
                    draw.choice("<>") + "I", draw.choice((0, 1, 2**16, 2**31, 2**32 - 1))
                )
            case _:
                source = draw.randrange(len(changed) + 1)
                changed[at:at] = changed[source : source + size]
    return bytes(changed)


def odd_json(data: bytes, draw: random.Random) -> bytes:
    """The JSON with one to three of its values replaced, dropped or renamed, whatever their place and type."""
    value = json.loads(data)
    for _ in range(draw.choice((1, 1, 3))):
        places = list(_places(value))
        holder, key = draw.choice(places)
        if draw.random() < 0.15 and isinstance(holder, dict):
            del holder[key]
        elif draw.random() < 0.15 and isinstance(holder, dict):
            holder[draw.choice(("", "\0", "x" * 300, "seed", "é"))] = holder.pop(key)
        else:
            holder[key] = json.loads(json.dumps(draw.choice(ODD)))
        if not value:
            break
    return json.dumps(value).encode()


def _places(value: Any) -> Any:
    for key in list(value) if isinstance(value, dict) else range(len(value)) if isinstance(value, list) else ():
        yield value, key
        yield from _places(value[key])


# ---------------------------------------------------------------- what is damaged


def sample_run() -> Run:
    plain = {
        kind: Component(f"{kind}-x", (("weight", 1.5),), "abc") for kind in ("dataset", "model", "prior", "network")
    }
    return Run(**plain, latent_dim=2, seed=0, images=160, batch=16)  # type: ignore[arg-type]


def run_json() -> bytes:
    value = {
        "schema": SCHEMA,
        "run": sample_run().record(),
        "provenance": {"command": "genbench run", "packages": {"a": "1"}},
    }
    return json.dumps(value, indent=1).encode()


def metrics_json() -> bytes:
    optional = dict.fromkeys(("floor", "floor_sd", "se", "low", "high", "p_value", "minimum_detectable_effect"), 0.5)
    number = {
        "value": 1.0,
        "unit": "",
        "higher_is_better": False,
        "n": 100,
        "component": "",
        "role": "",
        "label": "FID",
        **optional,
    }
    entry = {"metric": "fid", "options": {"n": 100}, "error": "", "inapplicable": "", "split": "test"}
    entry["numbers"] = [
        {**number, "protocol": "ab", "how": {"n": 100}},
        {**number, "component": "b", "protocol": "cd", "how": {}},
    ]
    return json.dumps({"schema": SCHEMA, "measurements": {"k": entry}}, indent=1).encode()


def bundle() -> bytes:
    name = sample_run().name
    picture = io.BytesIO()
    Image.new("RGB", (8, 8)).save(picture, format="png")
    training = {"schema": SCHEMA, "seconds": 1.0, "images": 160, "parameters": 9, "device": "cpu", "threads": 1}
    files = {
        "run.json": run_json(),
        "training.json": json.dumps(training | {"peak_memory": None, "flops": None}).encode(),
        "metrics.json": metrics_json(),
        "samples.png": picture.getvalue(),
    }
    with tempfile.TemporaryDirectory() as at:
        for file, data in files.items():
            Path(at, file).write_bytes(data)
        write_tar({f"{name}/{file}": Path(at, file) for file in sorted(files)}, Path(at, "bundle"))
        return Path(at, "bundle").read_bytes()


HOSTILE = ("../x.json", "/x.json", "a\\b.json", "C:x", "a-b/../../x.json", "a-b/run.json", "A-B/run.json", "a-b/\0.png")
ENTRY_TYPES = (tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.CHRTYPE, tarfile.DIRTYPE, tarfile.GNUTYPE_SPARSE, b"?")


def odd_bundle(data: bytes, draw: random.Random) -> bytes:
    """The bundle with names, kinds, sizes or contents of its entries replaced, checksums of the tar all right."""
    changed = io.BytesIO()
    with tarfile.open(fileobj=io.BytesIO(data)) as source, tarfile.open(fileobj=changed, mode="w") as target:
        for info in source.getmembers():
            file = source.extractfile(info)
            content = b"" if file is None else file.read()
            if draw.random() < 0.4:
                match draw.randrange(6):
                    case 0:
                        info.name = draw.choice(HOSTILE)
                    case 1:
                        info.type, info.linkname = draw.choice(ENTRY_TYPES), draw.choice(("/etc/passwd", "../x", "a"))
                    case 2:
                        content = damaged(content, draw)
                    case 3:
                        continue
                    case 4:
                        sizes = {"GNU.sparse.size": str(draw.choice((0, 9, 2**40))), "GNU.sparse.map": "0,1"}
                        info.pax_headers = sizes | {"GNU.sparse.major": "0", "GNU.sparse.minor": "1"}
                    case _:
                        content = odd_json(content, draw) if info.name.endswith(".json") else b""
            info.size = len(content)
            target.addfile(info, io.BytesIO(content))
    return changed.getvalue()


def idx() -> bytes:
    return struct.pack(">4B3I", 0, 0, 8, 3, 3, 28, 28) + bytes(3 * 28 * 28)


def partition() -> bytes:
    return "".join(f"{k:06d}.jpg {k % 3}\n" for k in range(1, 40)).encode()


# ---------------------------------------------------------------- the readers, and what is then done with the result


def read_run_json(data: bytes) -> None:
    record = decode(data, RunFile, "run.json")
    run = run_of_record(msgspec.to_builtins(record.run))
    assert len(run.key) == 10
    assert run.name
    group_labels({"a": run, "b": sample_run()}, {}, lambda variants: {})
    json.dumps(msgspec.to_builtins(record), allow_nan=False, ensure_ascii=False).encode()


def read_metrics_json(data: bytes) -> None:
    measurements = decode(data, MetricsFile, "metrics.json").measurements
    facts = {"run": "r", "group": "g", "label": "l", "dataset": "d", "model": "m", "prior": "p", "network": "n"}
    rows = list(rows_of_measurements(facts | {"latent_dim": 2, "seed": 0, "images": 1}, measurements))
    tidy_csv(rows).encode(), tidy_json(rows).encode()


def read_bundle(data: bytes) -> None:
    with tempfile.TemporaryDirectory(dir="/dev/shm" if Path("/dev/shm").is_dir() else None) as at:
        inside = Path(at, "store", "target")
        try:
            unpack(io.BytesIO(data), inside, "x.tar")
        finally:
            shutil.rmtree(inside, ignore_errors=True)
            left = sorted(str(path.relative_to(at)) for path in Path(at).rglob("*"))
            assert left in ([], ["store"]), f"outside the target: {left}"


def read_idx(data: bytes) -> None:
    assert idx_values(data, Path("x"), 28, 28).shape[1:] == (28, 28)


def read_faces(data: bytes) -> None:
    for names in read_partition(data, Path("x")).values():
        assert not [name for name in names if "/" in name or ".." in name or "\0" in name]


@dataclass(frozen=True)
class Target:
    """A reader, a sound input of it, and the ways in which that is damaged."""

    sound: Callable[[], bytes]
    read: Callable[[bytes], None]
    ways: tuple[Callable[[bytes, random.Random], bytes], ...]


TARGETS: Mapping[str, Target] = {
    "run.json": Target(run_json, read_run_json, (damaged, odd_json)),
    "metrics.json": Target(metrics_json, read_metrics_json, (damaged, odd_json)),
    "bundle": Target(bundle, read_bundle, (damaged, odd_bundle)),
    "idx": Target(idx, read_idx, (damaged,)),
    "partition file": Target(partition, read_faces, (damaged,)),
}


@dataclass
class Counts:
    """Outcomes: refused by an error of ours, read as sound, and what crashed, with the input."""

    refused: int = 0
    read: int = 0
    crashes: list[tuple[str, bytes]] = None  # type: ignore[assignment]


def fuzz(name: str, inputs: int, seed: int = 0) -> Counts:
    """Try so many damaged inputs on a reader."""
    target, draw, counts = TARGETS[name], random.Random(seed), Counts(crashes=[])
    sound = target.sound()
    target.read(sound)
    for k in range(inputs):
        data = target.ways[k % len(target.ways)](sound, draw)
        try:
            target.read(data)
        except GenbenchError as error:
            text = str(error)
            if "\n" in text or len(text) > 2000 or not text.isprintable():
                counts.crashes.append((f"not one clear line: {text[:200]!r}", data))
            counts.refused += 1
        except Exception as error:
            counts.crashes.append((f"{type(error).__name__}: {error}", data))
        else:
            counts.read += 1
    return counts
