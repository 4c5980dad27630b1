"""Numbers measured anew from the weights of a bundle: those of its records pass, invented ones do not."""

from __future__ import annotations

import hashlib
import io
import json
import tarfile
from collections.abc import Callable
from pathlib import Path

from click.testing import Result

from genbench.storage.bundle import BUNDLE_SCHEMA, MANIFEST
from tests.support.studies import DOTS, TINY, TINY_METRICS

Genbench = Callable[..., Result]


def with_value(bundle: Path, target: Path, value: float) -> Path:
    """A bundle whose first number of each run is another, with true hashes: nothing in it contradicts it."""
    with tarfile.open(bundle) as archive:
        files = {info.name: file.read() for info in archive if (file := archive.extractfile(info))}
    for name in [name for name in files if name.endswith("/metrics.json")]:
        record = json.loads(files[name])
        next(iter(record["measurements"].values()))["numbers"][0]["value"] = value
        files[name] = json.dumps(record).encode()
    listed = {n: {"size": len(d), "sha256": hashlib.sha256(d).hexdigest()} for n, d in files.items() if n != MANIFEST}
    files[MANIFEST] = json.dumps({"schema": BUNDLE_SCHEMA, "genbench": "x", "files": listed}).encode()
    with tarfile.open(target, "w") as archive:
        for name, data in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    return target


def test_an_invented_number_is_found_by_its_weights(genbench: Genbench) -> None:
    assert genbench("run", "swae", *DOTS, *TINY, *TINY_METRICS).exit_code == 0
    assert genbench("bundle", "export", "runs", "--out", "ann.tar").exit_code == 0
    assert genbench("bundle", "export", "runs", "--out", "light.tar", "--no-weights").exit_code == 0
    verify = ("--out", "site", "--verify", "1", *DOTS)
    assert genbench("site", "ann.tar", *verify).exit_code == 0
    assert "1 of 1 runs, numbers as recorded to 1%" in Path("site/index.html").read_text()

    with_value(Path("ann.tar"), Path("better.tar"), 0.001)
    assert genbench("site", "better.tar", "--out", "unverified").exit_code == 0
    result = genbench("site", "better.tar", *verify)
    assert (result.exit_code, len(result.output.splitlines())) == (2, 1), result.output
    assert "better.tar: reconstruction.pixel of the run dots-swae" in result.output
    assert "is 0.001 by its record" in result.output
    assert "ann" in Path("site/index.html").read_text()  # the earlier site stays

    assert genbench("site", "light.tar", *verify).exit_code == 0
    assert "none of 1 runs, whose weights are not in the bundle" in Path("site/index.html").read_text()
    result = genbench("site", "ann.tar", "--out", "site", "--verify", "1")  # without the dataset's plug-in
    assert result.exit_code == 0
    assert "not measured anew, ann.tar: " in result.output
    page = Path("site/index.html").read_text()
    assert "none of 1 runs" in page
    assert str(Path.cwd()) not in page
