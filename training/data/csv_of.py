"""Lists the faces of any DATA of training in a CSV, which every command takes as DATA, on a board too.

    python -m training.data.csv_of rafdb:D:test --output faces.csv

The CSV has the columns file and label, and what else is known of each face: subject, video, valence, arousal.
"""

from __future__ import annotations

import csv
import io
import os
from pathlib import Path
from typing import Annotated

import typer

from edge_fer.cli_errors import guarded, notice
from edge_fer.errors import InputError, UsageError
from edge_fer.faces import FaceSet
from edge_fer.output import write_text
from training.data.labelled import read_labelled


def write_csv(faces: FaceSet, path: Path) -> None:
    """Write the faces as a CSV, all that is known of each but votes.

    Pictures below the CSV's folder are named from there, so that both can be copied together; others by their
    whole path.

    Raises:
        InputError: the place cannot be written to, or a picture's name is none that is read again.
    """
    columns = sorted({column for face in faces.faces for column in face.columns})
    folder = path.parent.resolve()
    text = io.StringIO()
    rows = csv.writer(text, lineterminator="\n")
    rows.writerow(["file", "label", *columns])
    for face in faces.faces:
        # Not the picture itself: where it is a link, what it leads to may have any name.
        picture = face.path.parent.resolve() / face.path.name
        file = picture.relative_to(folder) if picture.is_relative_to(folder) else picture
        name = file.as_posix()
        if "\r" in name or name != name.strip():
            raise InputError(
                f"{picture}: expected a name without a line's end or spaces around it, which a CSV would not "
                "give back; rename the picture"
            )
        label = "" if face.label is None else faces.labels[face.label]
        rows.writerow([name, label, *(face.columns.get(column, "") for column in columns)])
    try:
        write_text(path, text.getvalue())
    except UnicodeEncodeError as error:
        line = text.getvalue()[: error.start].count("\n") + 1
        raise InputError(f"{path}:{line}: expected a picture's name in UTF-8; rename the picture") from None


@guarded
def main(
    data: Annotated[str, typer.Argument(metavar="DATA", help="Faces, as `train` and `evaluate` take them.")],
    output: Annotated[Path, typer.Option(readable=False, help="The CSV to write.")],
) -> None:
    """List the faces of DATA in a CSV that every command takes; prints its path."""
    if output.suffix.lower() != ".csv":
        raise UsageError(f"--output {output}: expected a name that ends in .csv, by which commands know one")
    if os.path.lexists(output):  # the list of the data itself, say
        raise InputError(f"--output {output}: expected a name that is not taken yet; name another")
    faces = read_labelled(data)
    write_csv(faces, output)
    notice(f"{len(faces.faces)} faces" + (f"; {faces.note}" if faces.note else ""))
    typer.echo(output)


if __name__ == "__main__":
    typer.run(main)
