"""`headwater index`: the operator's verbs on index generations."""

import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import click

from headwater.reachable import redis_reachable
from headwater.rotation import Rotation
from headwater.settings import read_settings

as_json = click.option("--json", "as_json", is_flag=True, help="Print one JSON document.")
dry_run = click.option("--dry-run", is_flag=True, help="Say what would happen, change nothing.")


@click.group()
def index() -> None:
    """List, build, verify, promote, roll back and prune index generations."""


@contextmanager
def _rotation() -> Iterator[Rotation]:
    settings = read_settings()
    with redis_reachable(settings):
        yield Rotation(settings)


def _say(as_json: bool, document: dict[str, Any], line: str) -> None:
    click.echo(json.dumps(document) if as_json else line)


@index.command("list")
@as_json
def list_generations(as_json: bool) -> None:
    """Show every bundle and generation, and which one is live."""
    with _rotation() as rotation:
        alias = rotation.generations.alias()
        registered = {generation.version: generation for generation in rotation.generations.all()}
        versions = sorted({*registered, *rotation.available()})
    rows: list[dict[str, Any]] = []
    for version in versions:
        generation = registered.get(version)
        rows.append(
            {
                "version": version,
                "state": generation.state if generation else "bundle only",
                "items": generation.embedded if generation else 0,
                "verified": generation.verified if generation else None,
                "live": version == alias.version,
                "previous": version == alias.previous,
                "error": generation.error if generation else None,
            }
        )
    if as_json:
        click.echo(json.dumps({"generations": rows, "alias": alias.model_dump(by_alias=True)}))
        return
    for row in rows:
        mark = "live" if row["live"] else "previous" if row["previous"] else ""
        verified = {None: "not verified", True: "verified", False: "failed verification"}[row["verified"]]
        click.echo(f"{row['version']}  {row['state']:<11}  {row['items']:>9} items  {verified:<20}{mark}".rstrip())
    if alias.promotions_paused:
        click.echo(
            "the trainer promotes nothing until `headwater index promote VERSION`, since an operator rolled back"
        )
    if not rows:
        click.echo("no bundles yet: `headwater train --once` makes the first")


@index.command()
@click.argument("version")
@as_json
def build(version: str, as_json: bool) -> None:
    """Embed every item with a bundle, ready for verification."""
    with (
        _rotation() as rotation,
        click.progressbar(
            length=1000, label=version, hidden=as_json or not sys.stderr.isatty(), file=sys.stderr
        ) as bar,
    ):

        def progress(embedded: int, items: int) -> None:
            if items:
                bar.update(1000 * embedded // items - bar.pos)

        generation = rotation.build(version, progress)
    _say(as_json, generation.model_dump(by_alias=True), f"{version}: {generation.embedded} items embedded")


@index.command()
@click.argument("version")
@as_json
def verify(version: str, as_json: bool) -> None:
    """Check hashes, golden outputs, dimensions, recall and coverage; exit 1 when a check fails."""
    with _rotation() as rotation:
        report = rotation.verify(version)
    if as_json:
        click.echo(report.model_dump_json())
    else:
        for check in report.checks:
            click.echo(f"{'ok  ' if check.passed else 'FAIL'}  {check.name}: {check.measured} (needs {check.required})")
    if not report.passed:
        raise SystemExit(1)


@index.command()
@click.argument("version")
@dry_run
@as_json
def promote(version: str, dry_run: bool, as_json: bool) -> None:
    """Make a generation live, if it verifies; after a rollback the trainer may promote again."""
    with _rotation() as rotation:
        was = rotation.live()
        if dry_run:
            rotation.verify(version, record=False).require()
        else:
            rotation.promote(version)
    verb = "would become" if dry_run else "is"
    _say(
        as_json,
        {"live": was if dry_run else version, "was": was, "dry_run": dry_run},
        f"{version} {verb} live (was {was})",
    )


@index.command()
@dry_run
@as_json
def rollback(dry_run: bool, as_json: bool) -> None:
    """Make the previous generation live again; the trainer promotes none until `promote` is used."""
    with _rotation() as rotation:
        was = rotation.live()
        target = rotation.rollback(dry_run)
    verb = "would become" if dry_run else "is"
    _say(
        as_json,
        {"version": target, "live": was if dry_run else target, "was": was, "dry_run": dry_run},
        f"{target} {verb} live (was {was})",
    )


@index.command()
@click.option("--keep", type=click.IntRange(min=1), default=2, show_default=True, help="Newest versions to keep.")
@dry_run
@as_json
def prune(keep: int, dry_run: bool, as_json: bool) -> None:
    """Delete old generations and their bundles; the live and the previous one stay."""
    with _rotation() as rotation:
        versions = rotation.prunable(keep) if dry_run else rotation.prune(keep)
    verb = "would delete" if dry_run else "deleted"
    _say(
        as_json, {"pruned": versions, "dry_run": dry_run}, f"{verb} {len(versions)}: {', '.join(versions) or 'nothing'}"
    )
