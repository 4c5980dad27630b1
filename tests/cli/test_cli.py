"""The command line, as a user meets it."""

from __future__ import annotations

import csv
import io
import json
import re
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from PIL import Image

from genbench import __version__
from genbench.cli.main import main
from genbench.cli.options import SECTIONS
from support.studies import DOTS, TINY, TINY_METRICS, study

TESTS = Path(__file__).parents[1]
COLUMNS = (
    "run,dataset,model,prior,network,latent_dim,seed,images,metric,value,floor,unit,higher_is_better,n,protocol,seconds,"
    "status,error"
)

Genbench = Callable[..., Result]


def test_run_ends_with_a_ranked_table_and_where_everything_is(genbench: Genbench) -> None:
    result = study(genbench, "--seeds", "2")
    assert result.exit_code == 0, result.output
    assert "[4/4]" in result.output
    assert "MSE per pixel" in result.output
    assert "Everything is in runs: " in result.output.splitlines()[-2]
    assert len(list(Path("runs").glob("*/weights.safetensors"))) == 4


def test_a_repeated_command_trains_nothing(genbench: Genbench) -> None:
    study(genbench)
    again = study(genbench)
    assert again.exit_code == 0
    assert "2 done" in again.output
    assert ": training," not in again.output


def test_dry_run_prints_the_plan_and_trains_nothing(genbench: Genbench) -> None:
    result = study(genbench, "--dry-run", "--seeds", "3", "--prior", "normal,uniform", "--prior", "ring")
    assert result.exit_code == 2  # the vae has no finite KL to a uniform prior
    result = genbench(
        "run", "swae", *DOTS, *TINY, "--dry-run", "--metrics", "reconstruction", "--prior", "ring,uniform"
    )
    assert result.exit_code == 0, result.output
    assert "2 runs on dots" in result.output
    assert "projections=50" in result.output
    assert not Path("runs").exists()


def test_a_run_that_fails_is_in_the_table_and_the_exit_status_is_1(genbench: Genbench) -> None:
    faulty = ("--plugin", str(TESTS / "fixtures" / "faulty.py"))
    result = genbench("run", "ae", "raises", *DOTS, *faulty, *TINY, *TINY_METRICS)
    assert result.exit_code == 1
    assert "ZeroDivisionError" in result.output
    assert "failed" in result.output.lower()
    assert "MSE per pixel" in result.output


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("run", "swea"), "did you mean 'swae'"),
        (("run", "swae", "--epochs", "1", "--images", "5"), "one of them"),
        (("run", "swae", "--device", "tpu"), "possible are auto, cpu, cuda"),
        (("run", "swae", "--device", "cuda:7"), "CUDA devices"),
        (("run", "swae", "--data-root", "nowhere"), "there is no such folder"),
        (("run", "swae", "--dataset", "mnist"), "mnist"),
        (("report",), "there is no folder runs"),
        (("show", "that"), "there is no run in runs"),
        (("evaluate", "--metrics", "fid"), "there is no folder runs"),
    ],
)
def test_mistakes_cost_one_line_and_exit_status_2(genbench: Genbench, arguments: tuple[str, ...], message: str) -> None:
    result = genbench(*arguments)
    assert result.exit_code == 2
    assert message in result.output
    assert len(result.output.strip().splitlines()) == 1
    assert not Path("runs").exists()


def test_report_exports_what_others_build_on(genbench: Genbench) -> None:
    study(genbench)
    result = genbench("report", "runs", "--export", "reports/mine")
    assert result.exit_code == 0, result.output
    names = {path.name for path in Path("reports/mine").iterdir()}
    assert {"rows.csv", "rows.json", "table.md", "table.tex", "table.csv", "report.html"} <= names
    table = list(csv.DictReader(Path("reports/mine/rows.csv").read_text().splitlines()))
    assert ",".join(list(table[0])[:18]) == COLUMNS
    assert {row["metric"] for row in table} >= {"reconstruction.pixel", "latent-w2", "latent-w2.excess", "sharpness"}
    assert json.loads(Path("reports/mine/rows.json").read_text())
    assert "toprule" in Path("reports/mine/table.tex").read_text()


def test_report_prints_the_tidy_rows_alone_as_csv(genbench: Genbench) -> None:
    study(genbench)
    result = genbench("report", "runs", "--format", "csv")
    table = list(csv.DictReader(io.StringIO(result.stdout)))
    assert len({row["run"] for row in table}) == 2
    assert all(row["status"] == "done" for row in table)


def test_measure_takes_a_new_metric_on_old_checkpoints(genbench: Genbench) -> None:
    study(genbench)
    weights = next(Path("runs").glob("*/weights.safetensors"))
    before = weights.stat().st_mtime_ns
    result = genbench("evaluate", "runs", "--metrics", "latent-sw", "--set", "latent-sw.n=50", *DOTS)
    assert result.exit_code == 0, result.output
    assert weights.stat().st_mtime_ns == before
    rows = csv.DictReader(io.StringIO(genbench("report", "--format", "csv").stdout))
    assert "latent-sw" in {row["metric"] for row in rows}


def test_sample_writes_a_picture_that_a_seed_determines(genbench: Genbench) -> None:
    study(genbench)
    for name in ("a", "b"):
        result = genbench("sample", "dots-swae", "--count", "9", "--out", f"{name}.png", *DOTS)
        assert result.exit_code == 0, result.output
    assert Path("a.png").read_bytes() == Path("b.png").read_bytes()
    with Image.open("a.png") as picture:
        assert picture.size == (3 * 14 + 2, 3 * 14 + 2)
    genbench("sample", "dots-swae", "--count", "9", "--seed", "1", "--out", "c.png", *DOTS)
    assert Path("a.png").read_bytes() != Path("c.png").read_bytes()
    assert genbench("sample", "dots-swae", "--out", "a.gif", *DOTS).exit_code == 2


def test_show_tells_all_of_a_run(genbench: Genbench) -> None:
    study(genbench)
    result = genbench("show", "dots-vae")
    assert result.exit_code == 0
    for word in ("bernoulli", "trained", "reconstruction.pixel", "torch", "samples.png"):
        assert word in result.output


@pytest.mark.parametrize("kind", ["models", "priors", "metrics", "datasets", "networks", "plugins"])
def test_list_shows_every_option_with_default_and_meaning(genbench: Genbench, kind: str) -> None:
    result = genbench("list", kind, *({"models": ["swae"]}.get(kind, [])))
    assert result.exit_code == 0
    expected = {
        "models": ("swae", "projections", "50", "1804.01947"),
        "priors": ("ring", "0.01"),
        "metrics": ("latent-w2", "2000"),
        "datasets": ("celeba", "140"),
        "networks": ("mlp", "200"),
        "plugins": ("loaded", "genbench"),
    }
    assert all(word in result.output for word in expected[kind])


def test_help_and_version_load_neither_torch_nor_plugins() -> None:
    code = (
        "import sys; from click.testing import CliRunner; from genbench.cli.main import main\n"
        "for flags in (['--help'], ['--version'], ['run', '--help']): print(CliRunner().invoke(main, flags).output)\n"
        "heavy = {'torch', 'torchvision', 'scipy', 'ot', 'rich', 'pluggy', 'numpy'} & set(sys.modules)\n"
        "assert not heavy, heavy"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    assert __version__ in result.stdout


def test_a_stopped_command_says_how_to_go_on(genbench: Genbench) -> None:
    """SIGINT in the middle of a training: status 130, and the same command then finishes."""
    command = [sys.executable, "-m", "genbench", "run", "ae", *DOTS, *TINY[:-4], "--images", "3000000", "--batch", "64"]
    command += ["--metrics", "reconstruction"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as process:
        assert process.stdout is not None
        lines = []
        for line in process.stdout:
            lines.append(line)
            if "images/s" in line or ": training," in line:
                process.send_signal(2)
                break
        rest = process.stdout.read()
    assert process.returncode == 130, "".join(lines) + rest
    assert "Interrupted. Re-run the same command to resume." in rest
    assert list(Path("runs").glob("*/run.json"))


def test_two_commands_on_one_store_share_the_work(genbench: Genbench) -> None:
    """At work at once they train each run once; the same command again then has nothing to do."""
    command = ("run", "ae", "swae", *DOTS, *TINY, "--seeds", "3", "--metrics", "reconstruction")
    with subprocess.Popen(
        [sys.executable, "-m", "genbench", *command], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    ) as process:
        while not list(Path("runs").glob("*/run.json")) and process.poll() is None:
            time.sleep(0.01)
        second = genbench(*command)  # in this process, which has imported torch
        output = process.communicate()[0]
    assert [process.returncode, second.exit_code] == [0, 0], output + second.output
    assert "FAILED" not in output + second.output
    logs = [path.read_text().splitlines() for path in Path("runs").glob("*/log.jsonl")]
    steps = [[json.loads(line)["step"] for line in lines] for lines in logs]
    assert len(steps) == 6
    assert all(logged == sorted(set(logged)) for logged in steps)  # no step was logged, so none was taken, twice
    assert "6 done" in genbench(*command).output


@pytest.mark.parametrize(
    "arguments",
    [
        ("run", "swae", "--run-timeout", "nan"),
        ("run", "swae", "--executor", "ray", "--executor-option", "cpus-per-run=inf"),
        ("reproduce", "swae-gaussians", "--budget", "nan"),
        ("power", "runs", "--difference", "nan"),
    ],
)
def test_options_that_are_not_finite_are_refused(genbench: Genbench, arguments: tuple[str, ...]) -> None:
    """No comparison with nan holds, so no bound refuses it."""
    result = genbench(*arguments)
    assert (result.exit_code, "finite" in result.output) == (2, True), result.output


def test_every_command_stands_once_in_the_help_whole() -> None:
    """A new command must be given its section; a line that ends in dots says too little."""
    text = CliRunner().invoke(main, ["--help"], terminal_width=80).output
    assert sorted(name for section in SECTIONS.values() for name in section) == sorted(main.commands)
    assert all(len(re.findall(rf"^  {name} ", text, re.MULTILINE)) == 1 for name in main.commands)
    assert "..." not in text.partition("Train and measure:")[2]


@pytest.mark.parametrize("command", [("report", "runs"), ("reproduce", "swae-gaussians")])
def test_an_export_into_a_file_is_refused_before_any_work(genbench: Genbench, command: tuple[str, ...]) -> None:
    Path("mine").write_text("notes")
    result = genbench(*command, "--export", "mine")
    assert (result.exit_code, "is a file" in result.output) == (2, True)
    assert Path("mine").read_text() == "notes"


def test_a_reader_that_leaves_costs_no_run(genbench: Genbench) -> None:
    """`genbench run ... | head -1`: the next line finds the pipe broken, and the work goes on."""
    command = [sys.executable, "-m", "genbench", "run", "ae", *DOTS, *TINY, "--seeds", "2"]
    command += ["--metrics", "reconstruction"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        process.stdout.readline()
        process.stdout.close()
        stderr = process.stderr.read() if process.stderr else ""
    assert (process.returncode, stderr) == (0, "")
    assert len(list(Path("runs").glob("*/weights.safetensors"))) == 2
    assert not list(Path("runs").glob("*/failure.json"))
