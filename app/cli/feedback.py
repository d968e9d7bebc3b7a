"""`oddity feedback`: say what was wrong or right about a verdict, compare and rate images, take it back."""

from itertools import islice
from pathlib import Path
from typing import Annotated, Literal

import typer
from oddity_client import Feedback
from rich.table import Table

from app.cli.client import open_client
from app.cli.console import print_json, results
from app.cli.options import CollectionOption, DataOption, JsonOption, ServerOption, examples
from app.cli.waiting import say

cli = typer.Typer(no_args_is_help=True, help="Say what was wrong or right about a verdict; compare and rate images.")

RaterOption = Annotated[str | None, typer.Option(help="Who says so.")]


@cli.command(
    epilog=examples(
        "oddity feedback give missed scratched.jpg -c parts --note 'scratch at the rim'",
        "oddity feedback give false_alarm part-17 -c parts",
    )
)
def give(
    kind: Annotated[
        Literal["false_alarm", "missed", "confirmed"],
        typer.Argument(help="false_alarm: it is normal; missed: it is a defect; confirmed: the alarm was right."),
    ],
    image: Annotated[str, typer.Argument(metavar="FILE|ID", help="An image file, or the id of a stored image.")],
    collection: CollectionOption,
    note: Annotated[str | None, typer.Option(help="Free text for people.")] = None,
    server: ServerOption = None,
    data: DataOption = None,
    as_json: JsonOption = False,
) -> None:
    """Say that an alarm was false, a defect was missed or an alarm was right; the next score knows it."""
    with open_client(server, data) as client:
        place = client.collection(collection)
        if Path(image).is_file():
            told = place.give_feedback(kind, Path(image), note=note)
        else:
            told = place.give_feedback(kind, id=image, note=note)
    _show(told, as_json)


@cli.command(epilog=examples("oddity feedback ask -c parts", "oddity feedback ask -c parts -n 5 --rater anna --json"))
def ask(
    collection: CollectionOption,
    n: Annotated[int, typer.Option("-n", min=1, max=20, help="How many pairs.")] = 1,
    rater: RaterOption = None,
    scorer: Annotated[
        str | None, typer.Option(help="Scorer that chooses [default: the newest that can, else chance].")
    ] = None,
    server: ServerOption = None,
    data: DataOption = None,
    as_json: JsonOption = False,
) -> None:
    """Say which images to compare next; `oddity feedback compare` answers."""
    with open_client(server, data) as client:
        told = client.collection(collection).next_pairs(scorer=scorer, rater=rater, n=n)
    if as_json:
        print_json(told)
        return
    table = Table("left", "right", title=f"Which is more anomalous? Chosen by {told.scorer or told.chosen_by}")
    for pair in told.pairs:
        table.add_row(pair["left"], pair["right"])
    results().print(table)


@cli.command(epilog=examples("oddity feedback compare part-17 part-4 left -c parts --rater anna"))
def compare(
    left: Annotated[str, typer.Argument(metavar="ID", help="A stored image.")],
    right: Annotated[str, typer.Argument(metavar="ID", help="Another.")],
    answer: Annotated[
        Literal["left", "right", "same", "cannot_say"], typer.Argument(help="Which of them is more anomalous.")
    ],
    collection: CollectionOption,
    rater: RaterOption = None,
    note: Annotated[str | None, typer.Option(help="Free text for people.")] = None,
    server: ServerOption = None,
    data: DataOption = None,
    as_json: JsonOption = False,
) -> None:
    """Say which of two stored images is more anomalous, for methods that learn from comparisons."""
    with open_client(server, data) as client:
        place = client.collection(collection)
        told = place.give_feedback("pair", left=left, right=right, answer=answer, rater=rater, note=note)
    _show(told, as_json)


@cli.command(epilog=examples("oddity feedback rate part-17 3.5 -c parts --rater anna"))
def rate(
    image: Annotated[str, typer.Argument(metavar="ID", help="A stored image.")],
    value: Annotated[float, typer.Argument(help="Larger is more anomalous, on any scale.")],
    collection: CollectionOption,
    rater: Annotated[str, typer.Option(help="Who says so.")],
    note: Annotated[str | None, typer.Option(help="Free text for people.")] = None,
    server: ServerOption = None,
    data: DataOption = None,
    as_json: JsonOption = False,
) -> None:
    """Say how anomalous a stored image is, for methods that learn from ratings."""
    with open_client(server, data) as client:
        told = client.collection(collection).give_feedback("rating", id=image, value=value, rater=rater, note=note)
    _show(told, as_json)


@cli.command("list", epilog=examples("oddity feedback list -c parts"))
def list_feedback(
    collection: CollectionOption,
    limit: Annotated[int, typer.Option(min=1, max=1000, help="How many at most.")] = 100,
    server: ServerOption = None,
    data: DataOption = None,
    as_json: JsonOption = False,
) -> None:
    """List feedback, newest first, undone ones too."""
    with open_client(server, data) as client:
        found = list(islice(client.collection(collection).feedback(page=limit), limit))
    if as_json:
        print_json(found)
        return
    table = Table("feedback", "kind", "image", "note", "given", "undone", title=f"Feedback on {collection}")
    for one in found:
        undone = "" if one.undone_at is None else f"{one.undone_at:%Y-%m-%d %H:%M}"
        table.add_row(
            one.id,
            one.kind,
            one.image or f"{one.left}, {one.right}",
            one.note or "",
            f"{one.created_at:%Y-%m-%d %H:%M}",
            undone,
        )
    results().print(table)


@cli.command(epilog=examples("oddity feedback undo 0123456789abcdef0123456789abcdef -c parts"))
def undo(
    feedback: Annotated[str, typer.Argument(metavar="FEEDBACK", help="Id of the feedback.")],
    collection: CollectionOption,
    server: ServerOption = None,
    data: DataOption = None,
    as_json: JsonOption = False,
) -> None:
    """Take a feedback back: the role is as before, an image that it brought is removed."""
    with open_client(server, data) as client:
        told = client.collection(collection).undo_feedback(feedback)
    _show(told, as_json)


def _show(told: Feedback, as_json: bool) -> None:
    if as_json:
        print_json(told)
        return
    role = told.changed.get("role")
    taken = "is taken" if not role else f"is taken: role {role.get('before')} to {role.get('after')}"
    images = told.image or f"{told.left} and {told.right}"
    say(f"Feedback {told.id} ({told.kind}) on {images} {'is undone' if told.undone_at else taken}.")
