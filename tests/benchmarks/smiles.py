"""Tell smiling from neutral faces with a bundle, by group: for docs/model-card.md.

    python -m tests.benchmarks.smiles LONDON [BUNDLE...]

LONDON holds labels.csv (file, person, expression, age, gender, ethnicity) and the pictures of the Face
Research Lab London Set (DeBruine & Jones, CC BY 4.0). A face counts as right when the larger one of the two
probabilities, neutral and happiness, is its expression's. Prints Markdown; intervals are Clopper & Pearson's.
"""

from __future__ import annotations

import argparse
import csv
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from edge_fer import Recognizer
from edge_fer.bundle import default_bundle
from edge_fer.errors import EdgeFerError
from edge_fer.images import read_image
from edge_fer.parity.intervals import clopper_pearson

EXPRESSIONS = ("neutral", "happiness")
Person = Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Answer:
    """One picture: what its list says of it, and what the bundle said; None where no face was found."""

    person: Person
    said: str | None
    top: str | None

    @property
    def right(self) -> bool:
        """Whether the larger of the two probabilities is the expression's."""
        return self.said == self.person["expression"]


def age_band(person: Person) -> str:
    """Return a band of ages, or that none is stated."""
    if not person["age"].isdigit():
        return "not stated"
    age = int(person["age"])
    return "below 25" if age < 25 else "25 to 34" if age < 35 else "35 and above"


GROUPS: Mapping[str, Callable[[Person], str]] = {
    "all": lambda _: "all",
    "expression": lambda person: person["expression"],
    "gender": lambda person: person["gender"],
    "age": age_band,
    "ethnicity": lambda person: person["ethnicity"].replace("_", " "),
}


def ask(folder: Path, recognizer: Recognizer) -> list[Answer]:
    """Let the bundle, with the detector that every installation has, look at every picture."""
    answers = []
    with (folder / "labels.csv").open(encoding="utf-8", newline="") as file:
        people = list(csv.DictReader(file))
    for person in people:
        faces = recognizer.analyze(read_image(folder / person["file"])).faces
        if not faces:
            answers.append(Answer(person, None, None))
            continue
        found = faces[0].prediction
        said = max(EXPRESSIONS, key=lambda name: found.probabilities[found.labels.index(name)])
        answers.append(Answer(person, said, found.label))
    return answers


def table(answers: list[Answer]) -> list[str]:
    """Return the rows: a group, its value, how many are right, the interval, the wrong ones."""
    rows = []
    for group, value_of in GROUPS.items():
        for value in sorted({value_of(one.person) for one in answers}):
            chosen = [one for one in answers if value_of(one.person) == value]
            right = sum(one.right for one in chosen)
            low, high = clopper_pearson(right, len(chosen), two_sided=True)
            wrong = ", ".join(one.person["file"] for one in chosen if not one.right) if group == "all" else ""
            rows.append(
                f"| {group} | {value} | {right} of {len(chosen)} | {right / len(chosen):.3f} "
                f"({low:.3f}–{high:.3f}) | {wrong} |"
            )
    return rows


def main() -> None:
    """Ask every bundle and print its table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("folder", type=Path, metavar="LONDON")
    parser.add_argument("bundles", type=Path, nargs="*", metavar="BUNDLE", help="default: the embedded one")
    given = parser.parse_args()
    for path in given.bundles or [default_bundle()]:
        try:
            answers = ask(given.folder, Recognizer.load(path, threads=1))
        except EdgeFerError as error:
            raise SystemExit(f"error: {error}") from None
        missed = sum(one.said is None for one in answers)
        top = sum(one.top == one.person["expression"] for one in answers)
        print(f"\n{path.name}: no face found in {missed} pictures; right among all classes {top}.\n")
        print("| group | value | right | share (95 % interval) | wrong |\n|---|---|---|---|---|")
        print("\n".join(table(answers)))


if __name__ == "__main__":
    main()
