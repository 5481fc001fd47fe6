"""The command `moefps`: one file a command, each one thin call of the Python API.

Only click is imported here, so that ``moefps --help`` is quick; a command's file is imported when it is used.
"""

from __future__ import annotations

import click

from moefps.cli._group import LazyGroup

__all__ = ["main"]


def _print_version(context: click.Context, _: click.Parameter, is_asked: bool) -> None:
    if not is_asked or context.resilient_parsing:
        return
    from importlib.metadata import version

    click.echo(f"moefps {version('moefps')}")
    context.exit()


@click.group(
    cls=LazyGroup,
    commands_help={
        "demo": "Show it all on captured data that come with it.",
        "info": "Say what is in a file or a dump, and what is wrong with it.",
        "capture": "Record the routing of a model over texts, into a dump.",
        "convert": "Make a dump of another tool's trace or router logits.",
        "fingerprint": "Write the fingerprints of a dump to a .npy.",
        "distance": "Write the Wasserstein distances between all samples to a .npy.",
        "select": "Pick the samples that together show every way the model behaves.",
        "metrics": "Compute routing metrics: load, balance, confidence, specialisation.",
        "focus": "Tell how focused experts are on domains.",
        "consistency": "Say how alike two dumps of the same tokens are: two checkpoints.",
        "efficiency": "Count parameters and operations a token of a model, dense against active.",
        "pairs": "Build two conditions of one problem, and align their tokens.",
        "compare": "Compare how two dumps route the same tokens.",
        "report": "Write one HTML page about a comparison, metrics, a selection or a dump.",
    },
    context_settings={"help_option_names": ["-h", "--help"]},
)
@click.option(
    "--version",
    is_flag=True,
    is_eager=True,
    expose_value=False,
    callback=_print_version,
    help="Show the version and exit.",
)
def main() -> None:
    """Find the samples that together show every way a Mixture-of-Experts model routes.

    The input is fingerprints: a .npy of [N, L, E] floats, N samples by L layers by E experts, where every row of E is
    the share of each expert and sums to 1. Or it is a dump, the routing of a model token by token: `capture` records
    one, `convert` makes one of what other tools wrote.

    \b
    Examples:
      moefps demo
      moefps info X.npy
      moefps distance X.npy -o D.npy
      moefps select X.npy -m 64 -o sel.csv
      moefps capture Qwen/Qwen3-30B-A3B texts.jsonl -o texts.dump
      moefps select texts.dump -m 64 --labels column:domain

    The distance between two samples is the sum over layers of the Wasserstein-1 distance between their rows. If you
    come from scipy.stats.wasserstein_distance: a script that hands it two rows as they are has computed `--ground
    values`; one that hands it positions and weights has computed `--ground index`, the default here. `index` depends
    on how experts are numbered, which training leaves arbitrary; `--ground discrete` does not.
    """  # noqa: D301 (click wants the character itself)
