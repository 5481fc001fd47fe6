"""Makes the small model in models/demo-moe, from gathering its text to measuring what it has learnt.

    python scripts/train_demo_model.py corpus    WORK --data DATA      Debian 12: eight domains, split by document
    python scripts/train_demo_model.py tokenizer WORK                  BPE, token ids, held-out samples
    python scripts/train_demo_model.py train     WORK -o MODEL         GPU: one minute
    python scripts/train_demo_model.py evaluate  WORK MODEL            losses, experts in use, domains told apart

WORK is a folder for everything on the way (about 300 MB); no text goes into the repository. Each step reads what the
one before wrote. `train` needs only WORK/tokens and WORK/tokenizer, so it can run on another machine.
"""

from __future__ import annotations

import json
from pathlib import Path

import click

WORK = click.argument("work", type=click.Path(file_okay=False, path_type=Path))


@click.group(help=__doc__.splitlines()[0])
def main() -> None:
    """Group of steps."""


@main.command()
@WORK
@click.option("--data", type=click.Path(exists=True, file_okay=False, path_type=Path), required=True,
              help="folder with gsm8k/train.jsonl (repository openai/grade-school-math) and "
                   "taubench/taubench_gpt-4o-airline.json (sierra-research/tau-bench)")  # fmt: skip
def corpus(work: Path, data: Path) -> None:
    """Fetch Debian packages (downloaded and unpacked, not installed) and write WORK/corpus."""
    from demo_model.corpus import gather

    for domain, row in gather(work, data).items():
        click.echo(f"{domain:<12}{json.dumps({split: row[split] for split in ('train', 'held-out')})}")


@main.command()
@WORK
@click.option("--per-domain", default=40, show_default=True, help="held-out samples of each domain")
def tokenizer(work: Path, per_domain: int) -> None:
    """Learn the tokenizer; write WORK/tokenizer, WORK/tokens and WORK/heldout.jsonl."""
    from demo_model import tokens

    learnt = tokens.train_tokenizer(work)
    for name, count in tokens.encode_corpus(work, learnt).items():
        click.echo(f"{name:<22}{count:>10,} tokens")
    samples = tokens.held_out_samples(work, learnt, per_domain=per_domain)
    click.echo(f"{len(samples)} held-out samples in {work / 'heldout.jsonl'}")


@main.command()
@WORK
@click.option("-o", "--output", type=click.Path(file_okay=False, path_type=Path), required=True)
@click.option("--steps", default=1200, show_default=True)
@click.option("--seed", default=0, show_default=True)
@click.option("--balance", default=0.003, show_default=True, help="weight of the load-balancing loss")
@click.option("--device", default="cuda", show_default=True)
def train(work: Path, output: Path, steps: int, seed: int, balance: float, device: str) -> None:
    """Train, and write the model's folder."""
    from demo_model.training import train as run

    report = run(work, output, steps=steps, seed=seed, balance_weight=balance, device=device)
    click.echo(f"{report['parameters']:,} parameters, {report['tokens']:,} tokens, {report['seconds']} s")


@main.command()
@WORK
@click.argument("model", type=click.Path(exists=True, file_okay=False, path_type=Path))
def evaluate(work: Path, model: Path) -> None:
    """Measure, write WORK/evaluation.json, and exit with 1 where the model falls short."""
    from demo_model.evaluation import evaluate as measure
    from demo_model.evaluation import shortcomings

    report = measure(work, model)
    (work / "evaluation.json").write_text(json.dumps(report, indent=1), encoding="utf-8")
    for name, row in report["losses"].items():
        click.echo(f"{name:<12}" + "  ".join(f"{key} {round(value, 3):,}" for key, value in row.items()))
    for key in ("samples", "documents", "dead experts", "smallest share", "largest share", "1-NN accuracy"):
        click.echo(f"{key}: {report[key]}")
    lacking = shortcomings(report)
    for line in lacking:
        click.echo(f"falls short: {line}", err=True)
    raise SystemExit(1 if lacking else 0)


if __name__ == "__main__":
    main()
