"""Folders and archives as people have them: every file is read, or counted with the reason why it was not."""

from __future__ import annotations

import os
import random
import shutil
import socket
import struct
import tarfile
import tempfile
import zipfile
import zlib
from collections.abc import Callable
from dataclasses import replace
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from genbench.api import DataConfig
from genbench.data.decoding import image_names, open_pictures
from genbench.data.listing import LINKS, describe_passed_over
from genbench.errors import DataError, printable
from genbench_folder import Folder, picture


def png(level: int = 0, kind: str = "PNG") -> bytes:
    file = BytesIO()
    Image.new("RGB", (8, 8), (level, level, level)).save(file, kind)
    return file.getvalue()


def write(folder: Path, count: int, ending: str = ".png", first: int = 0) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for n in range(first, first + count):
        (folder / f"{n:03d}{ending}").write_bytes(png(n, "JPEG" if ending[:2].lower() == ".j" else "PNG"))
    return folder


def read(path: Path) -> tuple[int, str]:
    """The count of pictures, and what is said of the others."""
    with open_pictures(path) as pictures:
        names, passed_over = image_names(pictures)
        return len(names), describe_passed_over(passed_over)


# ---------------------------------------------------------------- links, endings, system folders, special files


def links(top: Path) -> None:
    write(top.parent / "elsewhere", 4)
    write(top / "cat", 3)
    (top / "dog").symlink_to("../elsewhere")
    (top / "one.png").symlink_to("../elsewhere/000.png")


def cycles(top: Path) -> None:
    write(top / "a", 2)
    (top / "a" / "up").symlink_to("..")
    (top / "out").symlink_to("/")
    (top / "self").symlink_to("self")


def mutual(top: Path) -> None:
    for name in "abc":
        write(top / name, 1)
    for name, target in ("ab", "ba", "bc", "cb"):
        (top / name / target).symlink_to(f"../{target}")


def nas(top: Path) -> None:
    write(top, 5)
    for folder in ("@eaDir/000.png", "#recycle", "$RECYCLE.BIN", "lost+found", ".Trash-1000/files", ".thumbnails"):
        write(top / folder, 1)
    for name in ("Thumbs.db", ".DS_Store", "._000.png", "System Volume Information/x.png", "__MACOSX/._x.png"):
        (top / name).parent.mkdir(exist_ok=True)
        (top / name).write_bytes(b"x")


def endings(top: Path) -> None:
    for n, ending in enumerate((".png", ".jfif", ".JPE", "", ".dat", ".txt")):
        write(top, 2, ending, first=10 * n)
    (top / "notes.md").write_bytes(b"P3 is a text, BM as well")
    (top / "photo.heic").write_bytes(b"\0\0\0\x18ftypheic")


def special(top: Path) -> None:
    write(top, 2)
    os.mkfifo(top / "p.png")
    server = socket.socket(socket.AF_UNIX)
    here = Path.cwd()
    os.chdir(top)  # the path of a socket is short
    server.bind("s.png")
    os.chdir(here)
    server.close()
    (top / "zero.png").symlink_to("/dev/zero")


@pytest.mark.parametrize(
    ("make", "count", "text"),
    [
        (links, 8, ""),
        (
            cycles,
            2,
            "3 files passed over: 2 links back to a folder above it ('a/up'), 1 that cannot be opened ('self')",
        ),
        (mutual, 9, "6 files passed over: 6 links back to a folder above it ('a/b/a')"),
        (nas, 5, "11 files passed over: 11 hidden or of the system"),
        (endings, 12, "2 files passed over: 1 .heic, 1 .md"),
        (special, 2, "3 files passed over: 3 pipes, sockets or devices ('p.png')"),
    ],
)
def test_what_is_read_and_what_is_said(tmp_path: Path, make: Callable[[Path], None], count: int, text: str) -> None:
    top = tmp_path / "top"
    top.mkdir()
    make(top)
    assert read(top) == (count, text)


def test_folders_that_link_to_each_other_end(tmp_path: Path) -> None:
    for name in "abcde":
        write(tmp_path / name, 1)
        for target in set("abcde") - {name}:
            (tmp_path / name / target).symlink_to(f"../{target}")
    _, text = read(tmp_path)
    assert f"links behind {LINKS} others" in text


def test_a_link_to_nowhere_is_refused_where_it_is_a_picture(tmp_path: Path, data_config: DataConfig) -> None:
    write(tmp_path / "top", 9)
    (tmp_path / "top" / "notes.txt").symlink_to("nowhere")
    assert read(tmp_path / "top") == (9, "1 file passed over: 1 that cannot be opened ('notes.txt')")
    (tmp_path / "top" / "x.png").symlink_to("nowhere")
    dataset = Folder(path=str(tmp_path / "top"), size=8)
    with pytest.raises(DataError, match=r"'x.png' cannot be opened \(No such file or directory\).*--skip-corrupt"):
        dataset.info(data_config)
    assert dataset.info(replace(data_config, skip_corrupt=True)).skipped == 1


def test_files_and_folders_without_permission_are_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path / "top" / "sub", 3)
    monkeypatch.setattr(os, "access", lambda path, mode: not str(path).endswith("001.png"))  # root may read everything
    with pytest.raises(DataError, match=r"'sub/001.png' cannot be opened \(Permission denied\)"):
        read(tmp_path / "top")
    monkeypatch.undo()

    def refuse(path: Path) -> object:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(os, "scandir", refuse)
    with pytest.raises(DataError, match=r"the folder .*top cannot be listed \(Permission denied\)"):
        read(tmp_path / "top")


# ---------------------------------------------------------------- splits by folder


def split(data_config: DataConfig, *folders: str) -> tuple[int, int, int, str]:
    for n, folder in enumerate(folders):
        write(data_config.data_root / "faces" / folder, n + 3, first=20 * n)
    info = Folder(path="faces").info(data_config)
    return info.train, info.test, info.validation, info.notes[0]


HASHED = "no folders called train and test: split by a hash of the file names"


@pytest.mark.parametrize(
    ("folders", "expected"),
    [
        (("train", "test"), (3, 4, 0, "from faces/train and faces/test")),
        (("Train", "TESTING", "Valid"), (3, 4, 5, "from faces/Train, faces/Valid and faces/TESTING")),
        (("training_set", "test_set"), (3, 4, 0, "from faces/training_set and faces/test_set")),
        (("train2017", "val2017", "test2017"), (3, 5, 4, "from faces/train2017, faces/val2017 and faces/test2017")),
        (("cat/train", "cat/test", "dog/train", "dog/test"), (8, 10, 0, "from faces/*/train and faces/*/test")),
        (("cat", "train", "bus"), (11, 1, 0, HASHED)),  # a class of CIFAR-100
        (("dev/a", "test/a", "x"), (11, 1, 0, HASHED)),
        *(
            (
                ("train", name),
                (3, 4, 0, f"from faces/train and faces/{name} (there is no test folder: the images of faces/{name}"
                 " are the test images)"),
            )
            for name in ("val", "valid", "validation", "dev", "Eval")
        ),
    ],
)  # fmt: skip
def test_usual_names_of_splits(data_config: DataConfig, folders: tuple[str, ...], expected: tuple[object, ...]) -> None:
    assert split(data_config, *folders) == expected


@pytest.mark.parametrize(
    ("folders", "text"),
    [
        (("train", "val", "dev"), "dev/ and val/, which both stand for the validation images"),
        (("train", "Train", "test"), "Train/ and train/, which both stand for the train images"),
        (("test", "val"), "has test/ and val/, but there is no train/ among them"),
        (("train", "test", "extra"), "has test/ and train/, but 'extra/040.png' is in none of them"),
        (("trainA", "trainB", "testA", "testB"), "has testA/, testB/, trainA/ and trainB/, which look like splits"),
        (("seg_train", "seg_test"), "which look like splits"),
    ],
)
def test_splits_that_are_not_clear_are_refused(data_config: DataConfig, folders: tuple[str, ...], text: str) -> None:
    with pytest.raises(DataError) as caught:
        split(data_config, *folders)
    assert text in str(caught.value)


# ---------------------------------------------------------------- archives of other systems, files that are none


def add(archive: zipfile.ZipFile, name: str, data: bytes, system: int = 0, mode: int = 0o100644) -> None:
    entry = zipfile.ZipInfo()
    entry.filename = entry.orig_filename = name
    entry.create_system, entry.external_attr = system, mode << 16
    archive.writestr(entry, data)


@pytest.mark.parametrize("top", ["", "C:\\photos\\", "\\", "..\\x\\", "/data/", "../x/"])
def test_an_archive_keeps_its_folders(tmp_path: Path, top: str) -> None:
    slash = "/" if "/" in top else "\\"
    with zipfile.ZipFile(tmp_path / "x.zip", "w") as archive:
        for n in range(9):
            add(archive, f"{top}{'train' if n < 6 else 'test'}{slash}{n}.png", png(n))
    info = Folder(path=str(tmp_path / "x.zip")).info(DataConfig(tmp_path, tmp_path))
    assert (info.train, info.test) == (6, 3)


def test_links_and_second_entries_of_an_archive_are_counted(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "x.zip", "w") as archive:
        for n in range(5):
            add(archive, f"{n}.png", png(n))
        add(archive, "a/../0.png", png(9))
        add(archive, "link.png", b"0.png", system=3, mode=0o120777)
    count, text = read(tmp_path / "x.zip")
    assert count == 5
    assert "1 link stored in the archive ('link.png')" in text
    assert "1 stored twice under one name ('0.png')" in text


@pytest.mark.parametrize(
    ("raw", "system", "name"),
    [
        ("é.png".encode(), 3, "é.png"),
        ("é.png".encode(), 0, "é.png"),
        (b"caf\x82.png", 0, "café.png"),
        (b"caf\xe9.png", 3, os.fsdecode(b"caf\xe9.png")),
    ],
)
def test_names_of_archives_without_utf_8(tmp_path: Path, raw: bytes, system: int, name: str) -> None:
    path = tmp_path / "x.zip"
    with zipfile.ZipFile(path, "w") as archive:
        add(archive, "x" * len(raw), png(), system)
    path.write_bytes(path.read_bytes().replace(b"x" * len(raw), raw))
    with open_pictures(path) as pictures:
        assert image_names(pictures)[0] == [name]
        assert pictures.read(name) == png()


def test_a_stream_with_data_descriptors_is_read(tmp_path: Path) -> None:
    class Pipe(BytesIO):
        def seekable(self) -> bool:
            return False

    pipe = Pipe()
    with zipfile.ZipFile(pipe, "w") as archive:
        for n in range(3):
            archive.writestr(f"{n}.png", png(n))
    (tmp_path / "x.zip").write_bytes(pipe.getvalue())
    assert read(tmp_path / "x.zip") == (3, "")


def nested(path: Path) -> None:
    inner = BytesIO()
    with zipfile.ZipFile(inner, "w") as archive:
        archive.writestr("0.png", png())
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("inner.zip", inner.getvalue())


def npz(path: Path) -> None:
    with path.open("wb") as file:
        np.savez(file, x=np.zeros(3))


def tar(path: Path) -> None:
    with tarfile.open(path, "w:gz" if path.suffix == ".gz" else "w") as archive:
        archive.add(__file__, "x")


def last_part(path: Path) -> None:
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("0.png", png())
    data = bytearray(path.read_bytes())
    data[-18:-16] = struct.pack("<H", 1)  # the number of this disk
    path.write_bytes(data)


def save_array(path: Path) -> None:
    np.save(path, np.zeros(3))


@pytest.mark.parametrize(
    ("name", "make", "text"),
    [
        ("x.zip", nested, "it holds 1 .zip: unpack the archives inside"),
        ("x.npz", npz, "it holds 1 .npy: save the arrays as picture files"),
        ("my x.tar", tar, "is a tar archive: unpack it, mkdir -p '"),
        ("x.tar.gz", tar, "is a tar archive packed by gzip: unpack it"),
        ("x.npy", save_array, "is a NumPy array: save its images as picture files"),
        ("x.png", lambda path: path.write_bytes(png()), "is a single picture: give the folder"),
        ("x.zip", last_part, "is one part of a split zip archive: join the parts first"),
        ("x.z01", lambda path: path.write_bytes(b"PK\x07\x08rest"), "is one part of a split zip archive"),
        ("x.rar", lambda path: path.write_bytes(b"Rar!\x1a\x07\x01\x00"), "is packed by RAR: unpack it"),
        ("x.zip", lambda path: path.write_bytes(b""), "is no whole zip archive"),
        ("pipe", os.mkfifo, "is a pipe, a socket or a device"),
    ],
)
def test_what_is_no_folder_is_said_with_the_way_out(
    tmp_path: Path, data_config: DataConfig, name: str, make: Callable[[Path], None], text: str
) -> None:
    make(tmp_path / name)
    with pytest.raises(DataError) as caught:
        Folder(path=str(tmp_path / name)).info(data_config)
    assert text in str(caught.value)
    assert "get it again" not in str(caught.value) or name == "x.zip"


# ---------------------------------------------------------------- integers of unknown range, transparency


def tiff(values: np.ndarray, **options: object) -> bytes:
    file = BytesIO()
    Image.fromarray(values).save(file, "TIFF", **options)
    return file.getvalue()


def deep_png(values: np.ndarray, transparent: bytes) -> bytes:
    """A PNG of 16 bits, grey `(h, w)` or colour `(h, w, 3)`, with a tRNS chunk; Pillow writes none."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    height, width = values.shape[:2]
    head = struct.pack(">IIBBBBB", width, height, 16, 0 if values.ndim == 2 else 2, 0, 0, 0)
    pixels = zlib.compress(b"".join(b"\0" + row.astype(">u2").tobytes() for row in values))
    chunks = ((b"IHDR", head), (b"tRNS", transparent), (b"IDAT", pixels), (b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunk(kind, data) for kind, data in chunks)


@pytest.mark.parametrize("dtype", [np.int32, np.float32])
def test_numbers_of_unknown_range_are_refused(dtype: type) -> None:
    with pytest.raises(ValueError, match="of unknown range"):
        picture(tiff(np.full((4, 4), 200, dtype)), size=4, channels="grey")
    with pytest.raises(ValueError, match="of unknown range"):
        picture(tiff(np.full((4, 4), 200, np.uint16), tiffinfo={339: 2}), size=4, channels="grey")  # signed


def test_twelve_bits_in_sixteen_have_to_be_said(data_config: DataConfig) -> None:
    folder = write(data_config.data_root / "deep", 0)
    for n in range(10):
        (folder / f"{n}.tif").write_bytes(tiff(np.full((8, 8), 3200, np.uint16)))
    with pytest.raises(DataError, match=r"uses more than 12 of them.*dataset\.bits=12 .*dataset\.bits=16"):
        Folder(path="deep", size=8).load(data_config)
    assert Folder(path="deep", size=8, bits=12).load(data_config).train.unique().tolist() == [round(3200 / 4095 * 255)]
    assert Folder(path="deep", size=8, bits=16).load(data_config).train.unique().tolist() == [12]
    with pytest.raises(DataError, match=r"a pixel is 3200, more than bits=11 hold"):
        Folder(path="deep", size=8, bits=11).load(data_config)
    (folder / "bright.tif").write_bytes(tiff(np.full((8, 8), 65535, np.uint16)))  # one of them uses all bits
    assert Folder(path="deep", size=8, test=0.0).load(data_config).train.unique().tolist() == [12, 255]


def test_transparency_of_sixteen_bits_lies_on_white() -> None:
    grey = np.array([[30000, 60000]] * 2, np.uint16)
    pixels = picture(deep_png(grey, struct.pack(">H", 30000)), size=2, channels="grey")
    assert pixels[0, 0].tolist() == [255, round(60000 / 65535 * 255)]
    colour = np.full((2, 2, 3), (30000, 1000, 258), np.uint16)
    pixels = picture(deep_png(colour, struct.pack(">HHH", 30000, 1000, 258)), size=2, channels="rgb")
    assert pixels.min() == 255


# ---------------------------------------------------------------- what is said of the images


def test_test_images_that_are_training_images_are_counted(data_config: DataConfig) -> None:
    top = write(data_config.data_root / "faces" / "train", 9).parent
    write(top / "test", 6, first=8)
    images = Folder(path="faces", size=8).load(data_config)
    assert images.duplicates == 1
    assert Folder(path="faces", size=8).load(data_config).duplicates == 1  # from the cache
    notes = Folder(path="faces", size=8).info(replace(data_config, skip_corrupt=True)).notes
    assert notes == ("from faces/train and faces/test", "1 of 6 test images is also a training image")


def test_the_counts_with_corrupt_images_are_those_that_are_left(data_config: DataConfig) -> None:
    top = write(data_config.data_root / "bad", 40)
    for n in range(60):
        (top / f"x{n}.png").write_bytes(png()[:40])
    lenient = replace(data_config, skip_corrupt=True)
    info = Folder(path="bad", size=8).info(lenient)
    assert info.train + info.test == 40
    assert info.skipped == 60
    assert info.notes[-1] == "60 corrupt images left out"
    images = Folder(path="bad", size=8).load(lenient)
    assert (len(images.train), len(images.test), images.skipped) == (info.train, info.test, 60)


# ---------------------------------------------------------------- any tree

NAMES = st.one_of(
    st.sampled_from(
        ["a", "b", "Train", "x.y", ".hidden", "@eaDir", "lost+found", "é", "e\u0301", "new\nline", "#1 %s"]
    ),
    st.binary(min_size=1, max_size=4)
    .filter(lambda name: not set(name) & {0, 47} and name not in (b".", b".."))
    .map(os.fsdecode),
)
KINDS = st.sampled_from([".png", ".PNG", ".jfif", "", ".txt", ".bin", "cut.png", "text", "empty.jpg", "link", "loop"])
TREES = st.lists(st.tuples(st.lists(NAMES, max_size=3), NAMES, KINDS), min_size=1, max_size=12)


def plant(top: Path, tree: list[tuple[int, tuple[list[str], str, str]]]) -> int:
    """Make the files of a tree as far as the names allow; the count of those that are no folders."""
    write(top, 2)
    for n, (folders, stem, kind) in tree:
        path = (
            top.joinpath(*folders) / f"{stem}{n}{kind if kind.startswith('.') else '.' + kind if '.' in kind else ''}"
        )
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            if kind == "link":
                path.symlink_to(top / "000.png")
            elif kind == "loop":
                path.symlink_to(top)
            else:
                junk = {
                    ".txt": b"text",
                    "text": b"\xff\xd8",
                    "empty.jpg": b"",
                    "cut.png": png()[:40],
                    ".bin": b"BM" * 40,
                }
                path.write_bytes(junk.get(kind, png(n + 50)))
        except OSError:  # a folder where a file is, a name that is too long
            continue
    return sum(
        len(files) + sum((Path(root) / f).is_symlink() for f in folders) for root, folders, files in os.walk(top)
    )


@settings(max_examples=25, deadline=None)
@given(TREES, st.randoms(use_true_random=False))
def test_every_file_of_any_tree_is_read_or_counted(tree: list[tuple[list[str], str, str]], draw: random.Random) -> None:
    with tempfile.TemporaryDirectory() as folder:
        numbered = list(enumerate(tree))
        total = plant(Path(folder) / "one" / "top", numbered)
        draw.shuffle(numbered)
        if plant(Path(folder) / "two" / "top", numbered) == total:  # a file may keep a folder from being made
            assert read(Path(folder) / "one" / "top") == read(Path(folder) / "two" / "top")
        with open_pictures(Path(folder) / "one" / "top") as pictures:
            names, passed_over = image_names(pictures)
            assert len(names) + sum(map(len, passed_over.values())) == total
            printable(describe_passed_over(passed_over)).encode()
            corrupt = [name for name in names if not _decodes(pictures.read(name))]
            assert all("cut" in name or "empty" in name for name in corrupt)

            # An archive of the same files holds the same pictures under the same names.
            plain = [name for name in names if name == printable(name) and "\\" not in name]
            with zipfile.ZipFile(Path(folder) / "x.zip", "w") as archive:
                for name in plain:
                    add(archive, name, pictures.read(name), system=3)
            contents = {name: pictures.read(name) for name in plain}
        with open_pictures(Path(folder) / "x.zip") as packed:
            assert {name: packed.read(name) for name in image_names(packed)[0]} == contents


def _decodes(data: bytes) -> bool:
    try:
        picture(data, size=4, channels="rgb")
    except (OSError, SyntaxError, ValueError):
        return False
    return True


@settings(max_examples=5, deadline=None)
@given(TREES)
def test_a_folder_and_its_archive_give_equal_images(tree: list[tuple[list[str], str, str]]) -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write(folder / "top", 12)
        names = [printable("".join([*folders, stem])) for folders, stem, _ in tree]  # zipfile takes UTF-8 alone
        plant(
            folder / "top",
            [(n, entry) for n, (entry, text) in enumerate(zip(tree, names, strict=True)) if "\\" not in text],
        )
        for link in [path for path in (folder / "top").rglob("*") if path.is_symlink()]:
            link.unlink()
        shutil.make_archive(str(folder / "x"), "zip", folder / "top")
        data_config = DataConfig(folder, folder / "cache", skip_corrupt=True)
        first, second = (Folder(path=str(folder / each), size=4).load(data_config) for each in ("top", "x.zip"))
        assert first.sha256 == second.sha256
        assert first.skipped == second.skipped
