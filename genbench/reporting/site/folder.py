"""The folder of a site: checked, written beside its place, and moved there."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path
from uuid import uuid4

import msgspec

from genbench import __version__
from genbench.errors import UsageError, one_line
from genbench.reporting.csv_json import tidy_csv_lines
from genbench.reporting.site.pages import ROWS, site_pages
from genbench.reporting.site.submissions import Check, collect
from genbench.storage.bundle import only_process
from genbench.utils.io import PART, disk_full_error, read_bytes, write_json, write_pieces, write_text

SITE, SITE_SCHEMA = "genbench-site.json", 1
SITE_BYTES = 16 << 20
"""More than a genbench-site.json has."""


class SiteFile(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """genbench-site.json."""

    schema: int
    genbench: str
    bundles: dict[str, str]
    files: tuple[str, ...]


def write_site(
    target: Path,
    bundles: Sequence[Path],
    *,
    title: str = "",
    check: Check | None = None,
) -> tuple[list[str], list[str]]:
    """Write the site of some bundles into the folder `target`, whole or not at all, and return its pages.

    The second list has a line for what was left out. An earlier site is replaced in one step, any other folder that is
    not empty refused. Nothing is written before all bundles are checked. Raises what `collect` raises.
    """
    target = target.resolve()
    check_target(target)
    base = next(folder for folder in target.parents if folder.is_dir())
    with only_process(base, f".site-*{PART}"):
        temporary = base / f".site-{uuid4().hex[:8]}{PART}"
        try:
            temporary.mkdir()
            submissions, lines = collect(bundles, temporary / "bundles")
            checked = {} if check is None else check(submissions)
            tidy, pages = site_pages(submissions, title, checked)
            site = temporary / "site"
            for name, text in pages.items():
                write_text(site / name, text)
            write_pieces(site / ROWS, tidy_csv_lines(tidy))
            files = tuple(sorted([*pages, ROWS]))
            known = {submission.file: submission.sha256 for submission in submissions}
            write_json(site / SITE, msgspec.to_builtins(SiteFile(SITE_SCHEMA, __version__, known, files)))
            check_target(target)
            _replace(target, site, temporary / "earlier")
        except OSError as error:
            raise disk_full_error(base, error) or error from None
        finally:
            shutil.rmtree(temporary, ignore_errors=True)
    return list(pages), lines


def check_target(target: Path) -> None:
    """`UsageError` unless the folder is absent, empty, or an earlier site and nothing else."""
    remedy = "name a new folder, or one that a site was written to"
    if target in (Path.cwd(), *Path.cwd().parents):
        raise UsageError(
            f"--out {target} is the working directory or above it, and a site replaces its folder: {remedy}"
        )
    if file := next((folder for folder in target.parents if folder.exists() and not folder.is_dir()), None):
        raise UsageError(f"--out {target}: {file} is no folder: {remedy}")
    if not target.exists():
        return
    if not target.is_dir():
        raise UsageError(f"--out {target} is a file: {remedy}")
    entries = sorted(path.name for path in target.iterdir())
    if not entries:
        return
    try:
        site = msgspec.json.decode(read_bytes(target / SITE, SITE_BYTES), type=SiteFile)
    except (OSError, msgspec.MsgspecError, ValueError, RecursionError):
        raise UsageError(f"--out {target} is not empty and no earlier site: {remedy}") from None
    foreign = [name for name in entries if name not in (*site.files, SITE) or not (target / name).is_file()]
    if foreign:
        shown = one_line(ValueError(foreign[0]), 80)
        raise UsageError(
            f"--out {target} holds {shown}, which is no file of a site: move it away, or name a new folder"
        )


def _replace(target: Path, site: Path, earlier: Path) -> None:
    """Move the site into place; where that cannot be, an earlier one stays."""
    target.parent.mkdir(parents=True, exist_ok=True)
    if target.exists():
        target.rename(earlier)
    try:
        site.rename(target)
    except BaseException:
        if earlier.exists():
            earlier.rename(target)
        raise
