"""What the commands print about dumps."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from moefps._words import counted
from moefps.cli._findings import emit_rows, print_findings
from moefps.cli._progress import progress_on_stderr
from moefps.cli._render import emit_record
from moefps.errors import DataError
from moefps.reporting.content import number_ranges

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from moefps.io import Dump, Finding

__all__ = ["bytes_on_disk", "conversion_record", "print_conversion", "report_dump"]


def report_dump(path: str, output_format: str, *, show_progress: bool | None, quiet: bool) -> None:
    """Say what is in a dump and what is wrong with it.

    Parameters
    ----------
    path : str
        The dump's folder.
    output_format : {"table", "json", "csv", "parquet"}
        How it is said.
    show_progress : bool or None
        As `progress_on_stderr` takes it.
    quiet : bool
        True hides progress.

    Raises
    ------
    DumpError, FileError
        The dump is half-written or damaged.
    DataError
        There are values that are not accepted; everything has been printed by then.
    """
    from moefps.io import inspect_dump, open_dump

    dump = open_dump(path)
    with progress_on_stderr("reading", show_progress=show_progress, quiet=quiet) as progress:
        findings = inspect_dump(dump, progress=progress)
    facts = _facts(dump, path)
    arrays, layers = _arrays(dump), _layers(dump)
    if output_format == "table":
        _print_dump(dump, facts, arrays)
        print_findings(findings)
    elif output_format == "json":
        found = [_finding_record(finding) for finding in findings]
        notes = conversion_notes(dump)
        emit_record({**facts, "arrays": arrays, "layers": layers, "notes": notes, "findings": found}, "json")
    else:
        more = [("array", array["name"], f"{array['dtype']} {array['shape']}") for array in arrays]
        more += [("layer", str(layer["index"]), layer["path"]) for layer in layers]
        emit_rows(facts, findings, more, output_format)
    n_problems = sum(finding.is_problem for finding in findings)
    if n_problems:
        raise DataError(f"{path}: {counted(n_problems, 'kind')} of problem found")


def conversion_record(dump: Dump, output: str) -> dict[str, Any]:
    """Say what a trace became, for programs."""
    return {
        "output": output,
        "n_samples": dump.n_samples,
        "n_tokens": dump.n_tokens,
        "n_layers": dump.n_layers,
        "n_experts": dump.n_experts,
        "top_k": dump.top_k,
        "scoring": _united(layer.scoring for layer in dump.layers),
        "derived": _is_derived(dump),
        "arrays": ", ".join(dump.arrays),
        "bytes": bytes_on_disk(dump),
        "notes": conversion_notes(dump),
    }


def conversion_notes(dump: Dump) -> list[str]:
    """Give what was taken for granted when a dump was made of another tool's trace."""
    converted = dump.manifest.extra.get("converted")
    notes = converted.get("notes") if isinstance(converted, dict) else None
    return [str(note) for note in notes] if isinstance(notes, list) else []


def print_conversion(record: Mapping[str, Any]) -> None:
    """Say what a trace became, for people."""
    from moefps.io.atomic import human_bytes

    click.echo(
        f"{record['output']}: {counted(record['n_samples'], 'sample')}, {counted(record['n_tokens'], 'token')}, "
        f"{human_bytes(record['bytes'])}"
    )
    click.echo(
        f"  {counted(record['n_layers'], 'layer')} of {counted(record['n_experts'], 'expert')}, top-{record['top_k']}, "
        f"scoring {record['scoring']}"
    )
    click.echo(f"  holds {record['arrays']}")
    for note in record["notes"]:
        click.echo(f"  {note}")


def _facts(dump: Dump, path: str) -> dict[str, Any]:
    import numpy as np

    lengths = np.diff(dump.token_starts)
    manifest, model = dump.manifest, dump.manifest.model
    return {
        "source": path,
        "format_version": manifest.version,
        "n_samples": dump.n_samples,
        "n_tokens": dump.n_tokens,
        "shortest_sample": int(lengths.min()) if len(lengths) else None,
        "median_sample": float(np.median(lengths)) if len(lengths) else None,
        "longest_sample": int(lengths.max()) if len(lengths) else None,
        "n_layers": dump.n_layers,
        "n_experts": dump.n_experts,
        "passive_experts": max((layer.passive_experts for layer in dump.layers), default=0),
        "top_k": dump.top_k,
        "scoring": _united(layer.scoring for layer in dump.layers),
        "routing_type": _united(layer.routing_type for layer in dump.layers),
        "signed_weights": any(layer.signed_weights for layer in dump.layers),
        "derived": _is_derived(dump),
        "fingerprint_kind": manifest.fingerprint_kind,
        "hidden_layers": None if manifest.hidden_layers is None else number_ranges(manifest.hidden_layers),
        "sample_columns": ", ".join(dump.samples.columns),
        "token_columns": None if dump.tokens is None else ", ".join(dump.tokens.columns),
        **{f"model_{key}": model[key] for key in ("id", "revision", "type", "dtype") if model.get(key) is not None},
        **_pairs_entry(dump),
        "created": manifest.created,
        "bytes": bytes_on_disk(dump),
    }


def _pairs_entry(dump: Dump) -> dict[str, str | None]:
    """Say which condition of which file of pairs a dump is of; None for what it does not say."""
    entry = dump.manifest.extra.get("pairs")
    found = {key: entry.get(key) if isinstance(entry, dict) else None for key in ("condition", "sha256")}
    return {f"pairs_{key}": value if isinstance(value, str) else None for key, value in found.items()}


def _is_derived(dump: Dump) -> bool:
    """Whether a converter, or a router that the user named, took the largest logits for the choice."""
    whole = dump.manifest.extra.get("derived", False)
    return bool(whole) or any(layer.extra.get("derived_ids", False) for layer in dump.layers)


def _arrays(dump: Dump) -> list[dict[str, Any]]:
    found = []
    for name in dump.arrays:
        array = dump.stored(name)
        sizes = [int(size) for size in array.shape]
        found.append({"name": name, "dtype": array.dtype.name, "shape": sizes, "bytes": int(array.nbytes)})
    return found


def _layers(dump: Dump) -> list[dict[str, Any]]:
    names = ("index", "path", "layer", "n_experts", "passive_experts", "top_k", "scoring", "routing_type", "stack")
    return [{name: getattr(layer, name) for name in names} for layer in dump.layers]


def _united(words: Iterable[str]) -> str:
    """Give the words that occur, each once, in order."""
    return ", ".join(dict.fromkeys(words))


def bytes_on_disk(dump: Dump) -> int:
    """Add up the files of a dump."""
    return sum(file.stat().st_size for file in dump.path.iterdir() if file.is_file())


def _finding_record(finding: Finding) -> dict[str, Any]:
    from dataclasses import asdict

    return asdict(finding)


def _print_dump(dump: Dump, facts: Mapping[str, Any], arrays: list[dict[str, Any]]) -> None:
    from moefps.io.atomic import human_bytes

    click.echo(
        f"{facts['source']}: dump of {counted(dump.n_samples, 'sample')}, {counted(dump.n_tokens, 'token')}, "
        f"{human_bytes(facts['bytes'])} on disk"
    )
    if dump.n_samples:
        click.echo(
            f"  {facts['shortest_sample']:,} to {facts['longest_sample']:,} tokens a sample, "
            f"median {facts['median_sample']:,.6g}"
        )
    click.echo("  " + _layers_sentence(dump, facts))
    model = [str(facts[key]) for key in ("model_id", "model_type", "model_revision", "model_dtype") if key in facts]
    if model:
        click.echo(f"  model {', '.join(model)}")
    if "pairs" in dump.manifest.extra:
        click.echo("  " + _pairs_sentence(facts))
    if facts["derived"]:
        click.echo("  ids, perhaps weights too, are derived from router logits: not what a router returned")
    own = [name for name in dump.samples.columns if name not in {"sample", "token_start", "n_tokens"}]
    click.echo(f"  columns of the samples: {', '.join(own) or 'none of their own'}")
    if facts["token_columns"] is not None:
        click.echo(f"  columns of the tokens: {facts['token_columns']}")
    width = max(len(array["name"]) for array in arrays)
    for array in arrays:
        kind = f"  kind {facts['fingerprint_kind']}" if array["name"] == "fingerprints" else ""
        click.echo(
            f"  {array['name']:{width}}  {array['dtype']:7}  {array['shape']!s}  {human_bytes(array['bytes'])}{kind}"
        )


def _layers_sentence(dump: Dump, facts: Mapping[str, Any]) -> str:
    """Say how many layers there are, of what sizes and scoring."""
    if not dump.layers:
        return "no MoE layer"
    widths = sorted({layer.n_experts for layer in dump.layers})
    experts = counted(widths[0], "expert") if len(widths) == 1 else f"{widths[0]:,} to {counted(widths[-1], 'expert')}"
    words = f"{counted(dump.n_layers, 'layer')} of {experts}, top-{dump.top_k}, scoring {facts['scoring']}"
    stacks = _united(layer.stack for layer in dump.layers if layer.stack is not None)
    numbers = number_ranges(layer.layer for layer in dump.layers)
    word = "layer" if len({layer.layer for layer in dump.layers}) == 1 else "layers"
    words += f"; the model's {word} {numbers}" + (f" of {stacks}" if stacks else "")
    if facts["passive_experts"]:
        words += f"; {counted(facts['passive_experts'], 'passive expert')} at the end"
    return words + ("; weights may be negative" if facts["signed_weights"] else "")


def _pairs_sentence(facts: Mapping[str, Any]) -> str:
    """Say which condition of a file of pairs it is, and enough of the file's checksum to tell files apart."""
    condition, sha256 = facts["pairs_condition"], facts["pairs_sha256"]
    if condition is None or sha256 is None:
        return "the manifest's pairs is not an object of sha256 and condition; `moefps compare` refuses that"
    return f"the {condition} condition of aligned pairs, the file with sha256 {sha256[:12]}"
