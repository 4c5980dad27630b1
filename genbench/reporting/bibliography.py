"""BibTeX of everything that runs used: the entries of plug-ins, by the references of the components."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from genbench import __version__
from genbench.analysis.formatting import one_line_text
from genbench.experiment.run import SAMPLED, registered_components
from genbench.registry.listing import Kind, ListedComponent, Listing
from genbench.storage.provenance import commit
from genbench.storage.run_dir import RunRecord

OWN = "ours"
"""The reference of a component that comes from no publication begins so."""

TITLE = "{genbench}: autoencoder-type generative models, trained side by side and compared with uncertainty"
ABSENT = "absent"
ARXIV = re.compile(r"arXiv:(\d{4}\.\d{4,5}|[a-z-]+/\d{7})", re.IGNORECASE)
DOI = re.compile(r"doi:(10\.\d{4,}/[^\s,;]+)", re.IGNORECASE)
ENTRY_KEY = re.compile(r"@[A-Za-z]+\s*\{\s*([A-Za-z0-9:_.+/-]+)\s*,")

# TeX's special characters within a field of an entry; braces are removed, so that an entry cannot end early.
SPECIAL = {"\\": "/", "{": "(", "}": ")", "%": r"\%", "&": r"\&", "#": r"\#", "_": r"\_", "$": r"\$", "~": "-"}
SPECIAL |= {"^": "-", '"': "'"}


@dataclass(frozen=True)
class Part:
    """A component that runs used, as the registry lists it; None where its plug-in is not installed here."""

    kind: Kind
    name: str
    component: ListedComponent | None

    @property
    def label(self) -> str:
        """The component in words."""
        return f"{self.kind} {self.name}"


@dataclass
class Bibliography:
    """Entries by key in the order of their first use, what each is cited for, and parts without an entry."""

    entries: dict[str, str] = field(default_factory=dict)
    uses: dict[str, list[str]] = field(default_factory=dict)
    missing: list[str] = field(default_factory=list)

    def add(self, text: str, use: str) -> str:
        """Add an entry and return its key."""
        key = entry_key(text)
        self.entries.setdefault(key, text.strip())
        uses = self.uses.setdefault(key, [])
        if use and use not in uses:  # "": already cited for something
            uses.append(use)
        return key

    def text(self) -> str:
        """The entries as a .bib file, each under a comment that says what it is cited for."""
        blocks = [f"% {', '.join(self.uses[key])}\n{entry}\n" for key, entry in self.entries.items()]
        missing = (f"% {field_text(reason).replace('@', '(at)')}\n" for reason in self.missing)  # @ begins an entry
        return "\n".join([*blocks, *missing])


def entry_key(entry: str) -> str:
    """The key of a BibTeX entry.

    >>> entry_key("@misc{swae, title = {x}}")
    'swae'
    """
    match = ENTRY_KEY.match(entry.strip())
    return match.group(1) if match else ""


def used_parts(records: Iterable[RunRecord], listing: Listing) -> tuple[Part, ...]:
    """The components that the runs used, by kind: models, controls, priors, networks, datasets, metrics and theirs."""
    names: dict[Kind, dict[str, None]] = {
        kind: {}
        for kind in ("model", "control", "prior", "network", "dataset", "metric", "sampler", "extractor")  # the order
    }
    for record in records:
        run = record.run
        for kind, component in registered_components(run).items():
            names[kind][component.name] = None
        for entry in record.measurements.values():
            metric, _, sampler = entry.metric.partition(SAMPLED)
            if entry.numbers:
                names["metric"][metric] = None
                names["sampler"] |= {sampler: None} if sampler else {}
            for number in entry.numbers:
                extractor = str(number.how.get("extractor") or "")
                for name in listing.names("extractor"):
                    if extractor == name or extractor.startswith(f"{name}-"):
                        names["extractor"][name] = None
    return tuple(
        Part(kind, name, listing.get(kind, name) if name in listing.names(kind) else None)
        for kind, members in names.items()
        for name in members
    )


def bibliography(
    records: Sequence[RunRecord], listing: Listing, parts: Sequence[Part], *, options: bool = False
) -> Bibliography:
    """The entries of genbench, of the parts and of the libraries that the runs recorded; of options where asked for.

    A reference without an entry becomes a @misc from its text, marked as such. Nothing is looked up anywhere else.
    """
    cited = Bibliography()
    cited.add(genbench_entry(records), "genbench")
    for part in parts:
        if part.component is None:
            name = one_line_text(part.label)
            cited.missing.append(f"{name}: no plug-in here registers it; name its file by --plugin FILE")
            continue
        keys = cite(part.component.reference, listing.bibtex, cited, part.label)
        if not keys and is_publication(part.component.reference):
            cited.add(_from_reference(part, part.component), part.label)
        for option in part.component.options if options else ():
            cite(option.reference, listing.bibtex, cited, f"{part.name}.{option.name}")
    packages = {name for record in records for name, version in _packages(record).items() if version != ABSENT}
    for library in sorted(packages & listing.bibtex.keys()):
        cited.add(listing.bibtex[library], f"library {library}")
    return cited


def cite(reference: str, bibtex: Mapping[str, str], cited: Bibliography, use: str) -> list[str]:
    """The keys of the entries whose text stands in a reference, added to the bibliography."""
    return [cited.add(bibtex[text], use) for text in texts_in(reference, bibtex)]


def texts_in(reference: str, bibtex: Iterable[str]) -> list[str]:
    """Which texts stand in a reference as whole words, in their order there.

    >>> texts_in("arXiv:1711.01558, code of tolstikhin/wae", ["tolstikhin/wae", "arXiv:1711.0155", "arXiv:1711.01558"])
    ['arXiv:1711.01558', 'tolstikhin/wae']
    """
    places = {}
    for text in bibtex:
        if match := re.search(rf"(?<![\w./-]){re.escape(text)}(?![\w/-])", reference):
            places[text] = match.start()
    return sorted(places, key=lambda text: places[text])


def is_publication(reference: str) -> bool:
    """Whether a reference names something to cite: nothing that a plug-in's author calls "ours"."""
    return bool(reference) and reference.split(":")[0].split(",")[0].strip().lower() != OWN


def genbench_entry(records: Sequence[RunRecord] = ()) -> str:
    """The entry of genbench: the versions and commits of the runs, or of what is installed here."""
    known = dict.fromkeys((str(r.provenance.get("genbench", "")), str(r.provenance.get("commit", ""))) for r in records)
    states = [f"version {v}" + (f", commit {c}" if c else "") for v, c in known or {(__version__, commit()): None} if v]
    note = field_text("; ".join(states))
    lines = [
        "  author = {{The genbench authors}}",
        f"  title  = {{{TITLE}}}",
        f"  note   = {{{note[:1].upper()}{note[1:]}. Software}}",
    ]
    return "@misc{genbench,\n" + ",\n".join(lines) + "\n}"


def _from_reference(part: Part, component: ListedComponent) -> str:
    """An entry from nothing but a component's reference, which says so."""
    reference = component.reference
    lines = [f"  title  = {{{field_text(component.description)}}}"]
    if arxiv := ARXIV.search(reference):
        lines += [f"  eprint = {{{field_text(arxiv.group(1))}}}", "  archivePrefix = {arXiv}"]
    if doi := DOI.search(reference):
        lines.append(f"  doi    = {{{field_text(doi.group(1).rstrip('.'))}}}")
    words = f"Reference of the {part.kind} {part.name} as its plug-in gives it: {reference}. No BibTeX was provided"
    lines.append(f"  note   = {{{field_text(words)}}}")
    return f"@misc{{{part.kind}-{part.name},\n" + ",\n".join(lines) + "\n}"


def field_text(text: str) -> str:
    """Text within a field's braces."""
    return "".join(SPECIAL.get(c, c) for c in one_line_text(text))


def _packages(record: RunRecord) -> dict[str, str]:
    packages = record.provenance.get("packages")
    return {str(k): str(v) for k, v in packages.items()} if isinstance(packages, dict) else {}
