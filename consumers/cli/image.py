"""`image show`, `similar`, `register` and `export`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from consumers.access import permit
from consumers.cli.access import Role
from consumers.cli.read import Filters, Json, MaybePurpose, Since, safe
from infra.errors import UsageError

Image = Annotated[str, typer.Argument(help="An image, as search names it: its event, a document of it, or its object.")]


def register(app: typer.Typer) -> None:
    commands = typer.Typer(
        help="Images: show, compare, lay on each other, give away de-identified.", no_args_is_help=True
    )
    app.add_typer(commands, name="image")

    @commands.command()
    def show(
        image: Image,
        out: Annotated[Path, typer.Option(help="Where the PNG goes; readable by you alone.")],
        window: Annotated[
            str, typer.Option(help="CENTRE/WIDTH, such as 40/400, or brain, lung, bone, ...; default: the header's.")
        ] = "",
        frame: Annotated[int | None, typer.Option(min=1, help="Of many frames; default: the middle one.")] = None,
        step: Annotated[
            list[str] | None, typer.Option(help="equalise, clahe, blur, edges. Repeatable: in this order.")
        ] = None,
        preview: Annotated[bool, typer.Option("--preview", help="The small one that was made on the way.")] = False,
        purpose: MaybePurpose = None,
        role: Role = None,
        as_json: Json = False,
    ) -> None:
        """Write a picture of an image as PNG. Who looked, at whose, and why is written into the audit first."""
        from consumers import imaging

        one = imaging.show(permit("image", purpose, role), image, out, frame, window, step or (), preview)
        typer.echo(json.dumps({"id": one.document, "out": str(out)}) if as_json else f"{one.document} is in {out}")

    @commands.command()
    def similar(
        image: Image,
        k: Annotated[int, typer.Option("--k", help="How many images.")] = 10,
        filters: Filters = None,
        since: Since = None,
        purpose: MaybePurpose = None,
        role: Role = None,
        as_json: Json = False,
    ) -> None:
        """Find images whose pixels look like those of one, by a vector of their features (docs/imaging.md)."""
        from consumers import imaging
        from consumers.search import Narrow

        rows = imaging.alike(permit("search", purpose, role), image, k, Narrow(filters or (), None, since))
        if as_json:
            typer.echo(json.dumps({"hits": rows}, ensure_ascii=False))
            return
        table = Table("rank", "cosine", "modality", "body part", "model")
        table.add_column("id", no_wrap=True)
        for rank, row in enumerate(rows, 1):
            said = [safe(str(row.get(name, ""))) for name in ("modality", "body_part", "device_model")]
            table.add_row(str(rank), f"{row['cosine']:.3f}", *said, row["id"])
        Console().print(table)

    @commands.command("register")
    def lay(
        prior: Image,
        follow_up: Annotated[str, typer.Argument(help="The later image, of the same modality.")],
        out: Annotated[Path | None, typer.Option(help="A PNG of both: the prior red, the follow-up cyan.")] = None,
        frame: Annotated[int | None, typer.Option(min=1, help="Of the prior, where it has many.")] = None,
        follow_up_frame: Annotated[int | None, typer.Option(min=1, help="Of the follow-up.")] = None,
        purpose: MaybePurpose = None,
        role: Role = None,
        as_json: Json = False,
    ) -> None:
        """Lay a follow-up on its prior, rigidly: the turn, the shift in mm, how alike they are before and after."""
        from consumers import imaging

        found = imaging.laid(permit("image", purpose, role), prior, follow_up, out, (frame, follow_up_frame))
        if as_json:
            typer.echo(json.dumps(found))
            return
        before, after = found["before"]["correlation"], found["after"]["correlation"]
        right, down = found["shift"]
        typer.echo(f"turned {found['angle']:.2f} degrees, shifted {right:.2f} mm to the right and {down:.2f} mm down")
        typer.echo(f"correlation {before:.3f} before, {after:.3f} after")

    @commands.command()
    def export(
        out: Annotated[Path, typer.Option(help="A folder: one file an image, named by its new UID.")],
        images: Annotated[list[str] | None, typer.Argument(help="Images, as search names them.")] = None,
        study: Annotated[str, typer.Option(help="All of a study instead: its keyed hash, as search shows it.")] = "",
        project: Annotated[
            str, typer.Option(help="Within one project a person keeps one pseudonym; in another it is another.")
        ] = "default",
        option: Annotated[
            list[str] | None,
            typer.Option(help="patient, device, institution, modified_dates, full_dates, uids, descriptors, ..."),
        ] = None,
        allow_unclean: Annotated[
            bool, typer.Option("--allow-unclean", help="Write too what may show the patient: marked so.")
        ] = False,
        purpose: MaybePurpose = None,
        role: Role = None,
        as_json: Json = False,
    ) -> None:
        """Give images away without their patients: PS3.15 Annex E, basic profile and options; burned-in text blanked.

        Exit code 0 only when each was exported. docs/imaging.md says what is found and what is not.
        """
        from consumers import imaging

        if bool(images) == bool(study):
            raise UsageError("name images, or a --study")
        caller = permit("deidentify", purpose, role)
        columns = TextColumn("images"), BarColumn(), TextColumn("{task.completed:.0f}"), TimeElapsedColumn()
        with Progress(*columns, console=Console(stderr=True)) as progress:
            task = progress.add_task("", total=len(images or ()) or None)
            rows = imaging.export(
                caller, images or (), study, out, project, option or (), allow_unclean,
                lambda done: progress.advance(task, done),
            )  # fmt: skip
        if as_json:
            typer.echo(json.dumps({"images": rows}))
        else:
            table = Table("image", "outcome", "reason", "blanked", "file")
            for row in rows:
                table.add_row(*(str(row.get(name, "")) for name in ("id", "outcome", "reason", "blanked", "file")))
            Console().print(table)
        raise typer.Exit(0 if all(row["outcome"] == "exported" for row in rows) else 1)
