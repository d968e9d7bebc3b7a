"""`oddity groups`: sets of images that are judged as one."""

from typing import Annotated, Literal

import typer
from oddity_client import GroupMember, ItemProblem, NewImage
from rich.table import Table

from app.cli.classify import PathsArgument, pictures_of
from app.cli.client import open_client
from app.cli.console import print_json, results, short_number
from app.cli.options import CollectionOption, DataOption, JsonOption, ServerOption, examples
from app.cli.promise import shortfalls
from app.cli.waiting import say

cli = typer.Typer(no_args_is_help=True, help="Register normal sets of images, and score a set as one.")

DRAWN = "drawn from the bank"
NORMAL_SETS = {"registered": "those registered", "drawn": DRAWN, "bank": DRAWN, "held_out": "held out of the fit"}
GroupArgument = Annotated[str, typer.Argument(metavar="GROUP", help="Name of the set.")]


@cli.command(epilog=examples("oddity groups put part-17 views/part-17 -c parts"))
def put(
    group: GroupArgument,
    paths: PathsArgument,
    collection: CollectionOption,
    server: ServerOption = None,
    data: DataOption = None,
    as_json: JsonOption = False,
) -> None:
    """Register a normal set, in place of any earlier one of this name; its images become those of the collection."""
    with open_client(server, data) as client:
        told = client.collection(collection).put_group(group, _images(paths))
    if as_json:
        print_json(told)
    else:
        say(f"{collection}: set {group} has {len(told.members)} images; {len(told.refused)} were refused.")
    if told.refused:
        raise typer.Exit(1)


@cli.command("list", epilog=examples("oddity groups list -c parts"))
def list_groups(
    collection: CollectionOption, server: ServerOption = None, data: DataOption = None, as_json: JsonOption = False
) -> None:
    """List the registered sets."""
    with open_client(server, data) as client:
        found = client.collection(collection).groups()
    if as_json:
        print_json(found)
        return
    table = Table("set", "images", title=f"Sets of {collection}")
    for one in found:
        table.add_row(one.name, str(len(one.members)))
    results().print(table)


@cli.command(epilog=examples("oddity groups delete part-17 -c parts"))
def delete(
    group: GroupArgument, collection: CollectionOption, server: ServerOption = None, data: DataOption = None
) -> None:
    """Forget a set; its images stay."""
    with open_client(server, data) as client:
        client.collection(collection).delete_group(group)
    say(f"{collection}: set {group} is forgotten.")


@cli.command(epilog=examples("oddity groups score new/*.jpg -c parts --false-alarm-rate 0.05"))
def score(
    paths: PathsArgument,
    collection: CollectionOption,
    pooling: Annotated[
        Literal["mean", "max", "concat", "excess"],
        typer.Option(help="How the vectors, or a fitted scorer's scores, become one; excess: dn2's scores, too."),
    ] = "mean",
    scorer: Annotated[str | None, typer.Option(help="Id of a scorer [default: dn2].")] = None,
    false_alarm_rate: Annotated[
        float | None, typer.Option(help="Share of normal sets that may alarm [default: the collection's].")
    ] = None,
    server: ServerOption = None,
    data: DataOption = None,
    as_json: JsonOption = False,
) -> None:
    """Score a set of images as one, and say how much of the score each brings."""
    images = _images(paths)
    with open_client(server, data) as client:
        told = client.collection(collection).score_group(
            images, scorer=scorer, pooling=pooling, false_alarm_rate=false_alarm_rate
        )
    if as_json:
        print_json(told)
        return
    verdict = {True: "strange", False: "belongs", None: "too few normal sets to say"}[told.anomalous]
    table = Table(
        "file",
        "share",
        title=f"score {short_number(told.score)}, p-value {_p_value(told.p_value)}: {verdict}",
        caption=f"normal sets: {told.calibration.n}, {NORMAL_SETS.get(told.reference, told.reference)}",
    )
    have_scores = any(isinstance(one, GroupMember) and one.score is not None for one in told.members)
    for name in ("score", "p-value") if have_scores else ():
        table.add_column(name)
    for image, member in zip(images, told.members, strict=True):
        if isinstance(member, ItemProblem):
            table.add_row(image.name, member.problem.detail)
            continue
        own = [] if member.score is None else [short_number(member.score), _p_value(member.p_value)]
        table.add_row(image.name, f"{member.share:.2f}", *own)
    results().print(table)
    for one in shortfalls(told.calibration, "normal sets"):
        say(one)


def _p_value(found: float | None) -> str:
    return "none" if found is None else f"{found:.4f}"


def _images(paths: PathsArgument) -> list[NewImage]:
    return [NewImage(one.read(), one.name) for one in pictures_of(paths)]
