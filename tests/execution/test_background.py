"""Tasks beside the caller: order, errors, the bound on what is unfinished, and what leaving drops."""

from __future__ import annotations

import threading

import pytest

from genbench.execution.background import Background, Finished


def test_the_caller_goes_on_and_gets_results_in_the_order_of_giving() -> None:
    gate = threading.Event()
    with Background[int](workers=2, waiting=3) as tasks:
        assert list(tasks.give("slow", lambda: int(gate.wait(10)))) == []
        assert list(tasks.give("fast", lambda: 2)) == []
        assert list(tasks.ready()) == []  # the fast one waits for the slow one, which needs the caller
        gate.set()
        assert list(tasks.rest()) == [Finished("slow", 1, None), Finished("fast", 2, None)]


def test_a_task_that_fails_costs_no_other() -> None:
    with Background[float]() as tasks:
        bad, good = [*tasks.give("bad", lambda: 1 / 0), *tasks.give("good", lambda: 1.0), *tasks.rest()]
    assert isinstance(bad.error, ZeroDivisionError)
    assert (bad.name, bad.result) == ("bad", None)
    assert good == Finished("good", 1.0, None)


def test_no_more_tasks_than_allowed_are_unfinished() -> None:
    gate = threading.Event()

    def wait() -> None:
        gate.wait(10)

    with Background[None](waiting=2) as tasks:
        tasks.give("a", wait)
        tasks.give("b", lambda: None)
        threading.Timer(0.1, gate.set).start()
        assert next(tasks.give("c", lambda: None)).name == "a"
        assert gate.is_set()  # it waited for the oldest


def test_leaving_by_an_error_drops_what_has_not_begun() -> None:
    began, gate, done = threading.Event(), threading.Event(), []

    def first() -> None:
        began.set()
        gate.wait(10)
        done.append("first")

    def leave() -> None:
        with Background[None](waiting=2) as tasks:
            tasks.give("first", first)
            tasks.give("second", lambda: done.append("second"))
            began.wait(10)
            threading.Timer(0.1, gate.set).start()
            raise KeyError

    with pytest.raises(KeyError):
        leave()
    assert done == ["first"]


def test_counts_that_make_no_sense_are_refused() -> None:
    with pytest.raises(ValueError, match="3 workers, 2 waiting"):
        Background(workers=3, waiting=2)
