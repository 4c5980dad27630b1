"""Runs as calls of actors on a Ray cluster, where ray is installed (`pip install 'genbench[ray]'`).

An actor holds a slot (cores, a GPU or a part of one), the plug-ins and the images on its device, and does one run after
another. Ray places actors and tells of those whose node or process died; their runs go to new ones, which Ray places
where there is room. The command that was given holds the claim on every run; an actor that sees the command's own
folder of runs (told by a token in it) writes there, from any other the files come back through Ray.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from functools import partial
from types import ModuleType
from typing import Any
from uuid import uuid4

from genbench.errors import StoreError, UsageError, one_line
from genbench.execution.executors.ray_actor import RayActor
from genbench.execution.executors.ray_connection import connected
from genbench.execution.messages import image_facts, image_tensors, plugin_texts, read_folder, receive
from genbench.execution.scheduler import Engine, RunEvent, WorkerSpec
from genbench.experiment.run import Run
from genbench.storage.lock import RunLockedError, lock_run
from genbench.training.callbacks import LEFT
from genbench.utils.io import write_text

RETRIES = 3
"""How often a run is given to another actor after its node or its process died.

Not left to Ray's own `max_task_retries`: with ray 2.60 and a node killed, all three were used up, as "unavailable",
while the actor still waited for a place to be restarted.
"""
POLL_SECONDS = 2.0
"""How long an actor keeps a question for news that it has not got."""
PATIENCE_SECONDS = 60.0
"""How long an actor may take to save its run's state when the command stops."""
NOT_SENT = ("lock",)


@dataclass
class Hand:
    """An actor, and the run it is at: the call that does it, the question for news, until when it may take."""

    actor: Any
    shared: Any
    run: Run | None = None
    result: Any = None
    poll: Any = None
    began: bool = False
    deadline: float = float("inf")
    claim: ExitStack = field(default_factory=ExitStack)
    sent: tuple[str, ...] = ()
    losses: int = 0


@dataclass(frozen=True)
class Slot:
    """What a run takes of the cluster; `jobs` runs at once at most (None: as many as fit), each for `limit` seconds."""

    cpus: float
    gpus: float
    jobs: int | None
    limit: float


class Cluster:
    """The executor of a Ray cluster."""

    def __init__(self, ray: ModuleType, site: WorkerSpec, slot: Slot, shipped: tuple[Any, ...]) -> None:
        """`shipped` are the arguments of every actor: the brief, the images' facts and arrays, the store's token."""
        self._ray, self._site, self._slot, self._shipped = ray, site, slot, shipped
        self._hands: list[Hand] = []
        self._news: list[RunEvent] = []
        self._submitted = 0
        self._cancelled: float | None = None

    @property
    def capacity(self) -> int:
        """As many runs as the living nodes hold, or as --jobs asks for: an autoscaler then adds nodes."""
        nodes = [node["Resources"] for node in self._ray.nodes() if node["Alive"]]
        return max(1, min(self._slot.jobs or sum(fits(node, self._slot) for node in nodes), self._site.runs))

    def submit(self, run: Run) -> None:
        """Claim the run and give it to an idle actor, or to a new one."""
        self._submitted += 1
        folder, claim = self._site.store / run.name, ExitStack()
        try:
            claim.enter_context(lock_run(folder))
        except RunLockedError:
            self._news.append(RunEvent(run.name, "ended", {"problem": LEFT, "interrupted": False}))
            return
        self._give(run, claim, began=False, losses=0)

    def _give(self, run: Run, claim: ExitStack, *, began: bool, losses: int) -> None:
        hand = next((hand for hand in self._hands if hand.run is None), None) or self._hire()
        files = {} if self._known_to_share(hand) else read_folder(self._site.store / run.name, NOT_SENT)
        hand.run, hand.claim, hand.began, hand.losses = run, claim, began, losses
        hand.sent, hand.deadline = tuple(files), float("inf")
        hand.result = hand.actor.do.remote(run.name, json.dumps(run.record()), files)
        hand.poll = hand.actor.poll.remote(POLL_SECONDS)

    def wait(self, seconds: float) -> list[RunEvent]:
        """What the actors told, and what became of those that are lost or took too long."""
        news, self._news = self._news, []
        refs = [ref for hand in self._hands if hand.run for ref in (hand.result, hand.poll) if ref is not None]
        if refs:
            self._ray.wait(refs, num_returns=1, timeout=0.0 if news else seconds)
        for hand in [hand for hand in self._hands if hand.run is not None]:
            news += self._hear(hand)
        self._release_idle()
        return news

    def cancel(self) -> None:
        """Tell the actors to stop after their step."""
        self._cancelled = time.monotonic()
        for hand in self._hands:
            hand.actor.stop.remote()

    def close(self) -> None:
        """End all actors."""
        for hand in list(self._hands):
            self._dismiss(hand)

    def _hire(self) -> Hand:
        actor = (
            self._ray.remote(RayActor)
            .options(
                num_cpus=self._slot.cpus,
                num_gpus=self._slot.gpus,
                max_concurrency=4,
                scheduling_strategy="SPREAD",
            )
            .remote(*self._shipped)
        )
        hand = Hand(actor, actor.shares.remote())
        self._hands.append(hand)
        return hand

    def _known_to_share(self, hand: Hand) -> bool:
        """Whether an actor has said that it sees the store; not waited for: what it need not get is sent in vain."""
        ready, _ = self._ray.wait([hand.shared], timeout=0)
        with suppress(self._ray.exceptions.RayError):
            return bool(ready) and bool(self._ray.get(hand.shared))
        return False

    def _hear(self, hand: Hand) -> list[RunEvent]:
        assert hand.run is not None
        done = self._ready(hand.result)
        if done:
            return self._finish(hand)
        news = []
        if hand.poll is None or self._ready(hand.poll):
            with suppress(self._ray.exceptions.RayError):  # a lost actor is told of by its result
                news = self._told(hand, self._ray.get(hand.poll) if hand.poll is not None else [])
            hand.poll = hand.actor.poll.remote(POLL_SECONDS)
        if time.monotonic() > hand.deadline:
            message = f"no end within {self._slot.limit:g} s (--run-timeout); the worker was killed"
            return [*news, self._fail(hand, "timeout", message)]
        late = self._cancelled is not None and time.monotonic() - self._cancelled > PATIENCE_SECONDS
        if self._cancelled is not None and (late or not hand.began):
            name = hand.run.name
            self._dismiss(hand)
            news.append(RunEvent(name, "ended", {"problem": "", "interrupted": True}))
        return news

    def _ready(self, ref: Any) -> bool:
        ready, _ = self._ray.wait([ref], timeout=0)
        return bool(ready)

    def _told(self, hand: Hand, told: list[tuple[str, str, str]]) -> list[RunEvent]:
        """News as an actor tells it; a run that is repeated begins once."""
        news = []
        for name, kind, facts in told:
            if kind == "began":
                hand.deadline = time.monotonic() + self._slot.limit
                if hand.began:
                    continue
                hand.began = True
            news.append(RunEvent(name, kind, json.loads(facts)))  # type: ignore[arg-type]
        return news

    def _finish(self, hand: Hand) -> list[RunEvent]:
        run = hand.run
        assert run is not None
        try:
            end = self._ray.get(hand.result)
        except self._ray.exceptions.RayTaskError as error:
            return [self._fail(hand, "worker failed", one_line(error.cause if error.cause else error))]
        except self._ray.exceptions.RayError as error:
            return self._lose(hand, str(error))
        news: list[RunEvent] = []
        with suppress(self._ray.exceptions.RayError):  # the question is answered when the run ends
            news += self._told(hand, self._ray.get(hand.poll))
        news += self._told(hand, end["news"])
        problem = end["problem"]
        if end["files"] is not None:
            try:
                receive(self._site.store / run.name, end["files"], hand.sent)
            except (OSError, StoreError) as error:
                problem = "; ".join(filter(None, (problem, one_line(error))))
        hand.claim.close()
        hand.run = hand.result = hand.poll = None
        return [*news, RunEvent(run.name, "ended", {"problem": problem, "interrupted": end["interrupted"]})]

    def _lose(self, hand: Hand, told: str) -> list[RunEvent]:
        """Give the run of an actor that died to another one, unless it cannot be made or others died of it as well."""
        run = hand.run
        assert run is not None
        if self._cancelled is not None:
            self._dismiss(hand)
            return [RunEvent(run.name, "ended", {"problem": "", "interrupted": True})]
        if "creation task" in told:  # a plug-in that cannot be loaded there, say: no other would fare better
            *_, cause = [line for line in told.splitlines() if line.strip()]
            return [self._fail(hand, "worker failed", f"it cannot begin: {cause.strip()[:300]}")]
        if hand.losses == RETRIES:
            return [self._fail(hand, "worker lost", f"{RETRIES + 1} times, at last: {' '.join(told.split())[:300]}")]
        claim, hand.claim = hand.claim, ExitStack()
        self._dismiss(hand)
        self._give(run, claim, began=hand.began, losses=hand.losses + 1)
        return []

    def _fail(self, hand: Hand, kind: str, message: str) -> RunEvent:
        run = hand.run
        assert run is not None
        self._dismiss(hand)
        problem = self._site.fail(run, kind, message, "")
        return RunEvent(run.name, "ended", {"problem": problem, "interrupted": self._cancelled is not None})

    def _dismiss(self, hand: Hand) -> None:
        self._hands.remove(hand)
        hand.claim.close()
        with suppress(self._ray.exceptions.RayError):
            self._ray.kill(hand.actor)

    def _release_idle(self) -> None:
        """Idle actors give their slots back once none will need them: one that is new may wait for a slot."""
        idle = [hand for hand in self._hands if hand.run is None]
        if idle and (self._submitted == self._site.runs or len(self._hands) - len(idle) >= self.capacity):
            for hand in idle:
                self._dismiss(hand)


def fits(node: Mapping[str, float], slot: Slot) -> int:
    """How many runs a node of these resources holds at once."""
    counts = [int(node.get("CPU", 0.0) / slot.cpus + 1e-9)]
    if slot.gpus:
        counts.append(int(node.get("GPU", 0.0) / slot.gpus + 1e-9))
    return min(counts)


@contextmanager
def _opened(site: WorkerSpec, ray: ModuleType, address: str, slot: Slot) -> Iterator[Cluster]:
    with ExitStack() as stack:
        stack.enter_context(connected(ray, address))
        nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
        if slot.jobs is None and not any(fits(node, slot) for node in nodes):
            raise UsageError(
                f"no node of the Ray cluster has {slot.cpus:g} cores and {slot.gpus:g} GPUs for a run: lower"
                " --cpus-per-run or --gpus-per-run, or say --jobs N to have an autoscaler add nodes"
            )
        site.store.mkdir(parents=True, exist_ok=True)
        token, secret = site.store / f".seen-{uuid4().hex[:8]}", uuid4().hex
        write_text(token, secret)
        stack.callback(token.unlink, missing_ok=True)
        threads = max(1, int(slot.cpus))
        brief = {**site.brief, "threads": threads, "place": {**site.brief["place"], "workers": threads}}
        images = site.load()
        facts, arrays = image_facts(images), {name: tensor.numpy() for name, tensor in image_tensors(images).items()}
        put = ray.put(arrays)  # once for each node; actors there map it
        del images, arrays
        texts = plugin_texts(brief["plugins"])
        executor = Cluster(ray, site, slot, (json.dumps(brief), json.dumps(facts), [put], texts, (token.name, secret)))
        stack.callback(executor.close)
        yield executor


def cluster(address: str, jobs: int | None, gpus: float | None, cpus: float, limit: float | None) -> Engine:
    """The engine; `UsageError` where ray is not installed. `gpus` None is 1 where runs train on CUDA, else 0."""
    try:
        import ray
    except ImportError:
        raise UsageError("--executor ray needs Ray: pip install 'genbench[ray]'") from None

    def opened(site: WorkerSpec) -> Any:
        wanted = gpus if gpus is not None else float(site.brief["device"].startswith("cuda"))
        slot = Slot(cpus, wanted, jobs, float("inf") if limit is None else limit)
        return partial(_opened, ray=ray, address=address, slot=slot)(site)

    return opened
