"""Recipes: the shipped ones load, everything else is refused in one line that names the fault."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path

import pytest

from edge_fer.errors import RecipeError
from edge_fer.preprocess import FERPLUS_TEMPLATE
from training.building import build_network
from training.models.checkpoint import load_checkpoint
from training.recipe import load_recipe

RECIPES = Path(__file__).resolve().parents[2] / "training" / "recipes"
WEIGHTS = RECIPES.with_name("weights")
SHIPPED = sorted(RECIPES.glob("*.toml"))
MINIMAL = """
name = "small"

[network]
model = "grefel-lite"

[optimiser]
epochs = 2
"""


def write(path: Path, text: str) -> Path:
    path.write_text(text, encoding="utf-8")
    return path


@pytest.fixture
def recipe_file(tmp_path: Path) -> Path:
    return tmp_path / "recipe.toml"


def refusal(path: Path) -> str:
    """Return the one line that says why a recipe is refused."""
    with pytest.raises(RecipeError) as error:
        load_recipe(path)
    text = str(error.value)
    assert text.startswith(f"{path}: ")
    assert "\n" not in text and len(text) < 400
    return text


def test_there_is_a_shipped_recipe() -> None:
    assert "grefel-lite.toml" in {path.name for path in SHIPPED}


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: path.stem)
def test_every_shipped_recipe_loads(path: Path) -> None:
    recipe = load_recipe(path)
    assert recipe.name == path.stem
    assert json.loads(json.dumps(recipe.to_json())) == recipe.to_json()


@pytest.mark.parametrize("path", sorted(WEIGHTS.glob("*.safetensors")), ids=lambda path: path.stem)
def test_every_shipped_weight_has_its_recipe(path: Path) -> None:
    checkpoint = load_checkpoint(path)
    trained = checkpoint.info["recipe"]
    assert isinstance(trained, dict)
    recipe = load_recipe(RECIPES / f"{trained['name']}.toml")
    assert trained["optimiser"].items() <= recipe.to_json()["optimiser"].items()  # type: ignore[attr-defined]
    spec = replace(checkpoint.network.spec, temperature=1.0)  # fitted after training
    assert spec == build_network(recipe).spec
    assert checkpoint.crop.margin == recipe.crop.margin
    assert checkpoint.crop.template == recipe.crop.template()
    assert all(bool(tensor.isfinite().all()) for tensor in checkpoint.network.state_dict().values())


def test_defaults_fill_a_minimal_recipe(recipe_file: Path) -> None:
    recipe = load_recipe(write(recipe_file, MINIMAL))
    assert recipe.network.head is None and build_network(recipe).spec.head == "balanced"
    assert recipe.network.input_size is None
    assert recipe.method.smoothing == 0.11
    assert recipe.optimiser.precision == "32-true"
    assert recipe.crop.template() == ()
    assert recipe.to_json()["name"] == "small"


def test_values_of_a_recipe_are_kept(recipe_file: Path) -> None:
    text = MINIMAL + 'seed = 5\nlearning_rate = 1\n[crop]\nalignment = "five-point"\n[augment]\nflip = 0\n'
    recipe = load_recipe(write(recipe_file, text))
    assert recipe.optimiser.seed == 5
    assert recipe.crop.template() == FERPLUS_TEMPLATE
    # A whole number stands for a float, and is one afterwards.
    assert (recipe.optimiser.learning_rate, recipe.augment.flip) == (1.0, 0.0)
    assert type(recipe.optimiser.learning_rate) is type(recipe.augment.flip) is float


@pytest.mark.parametrize(
    ("text", "named"),
    [
        (MINIMAL + "epoch = 3\n", "optimiser: unknown key 'epoch'"),
        (MINIMAL + "[optimizer]\nepochs = 3\n", "unknown key 'optimizer'"),
        ("title = 'x'\n" + MINIMAL, "unknown key 'title'"),
        (MINIMAL.replace('name = "small"', ""), "missing key 'name'"),
        (MINIMAL.replace("epochs = 2", ""), "optimiser: missing key 'epochs'"),
        ('name = "x"\n[optimiser]\nepochs = 1\n', "missing key 'network'"),
        ("", "missing key 'name'"),
    ],
)
def test_unknown_and_missing_keys_are_named(recipe_file: Path, text: str, named: str) -> None:
    assert named in refusal(write(recipe_file, text))


@pytest.mark.parametrize(
    ("text", "named"),
    [
        (MINIMAL.replace('"small"', "3"), "name: expected str, got 3"),
        (MINIMAL.replace("epochs = 2", 'epochs = "2"'), "epochs: expected int, got '2'"),
        (MINIMAL.replace("epochs = 2", "epochs = 2.5"), "epochs: expected int, got 2.5"),
        (MINIMAL.replace("epochs = 2", "epochs = true"), "epochs: expected int, got True"),
        (MINIMAL + "learning_rate = '1e-3'\n", "learning_rate: expected float, got '1e-3'"),
        (MINIMAL + "learning_rate = true\n", "learning_rate: expected float, got True"),
        (MINIMAL + "[data]\nvotes = 1\n", "votes: expected bool, got 1"),
        (MINIMAL + "[augment]\nblur = [1]\n", "blur: expected float, got [1]"),
        (MINIMAL.replace("[optimiser]", "input_size = 'big'\n[optimiser]"), "input_size: expected int"),
        ("name = 'x'\nnetwork = 'grefel'\n[optimiser]\nepochs = 1\n", "network: expected a table"),
    ],
)
def test_wrong_types_are_named(recipe_file: Path, text: str, named: str) -> None:
    assert named in refusal(write(recipe_file, text))


@pytest.mark.parametrize(
    ("table", "line"),
    [
        ("network", "model = 'resnet'"),
        ("network", "classes = 1"),
        ("network", "classes = 9"),
        ("network", "input_size = 0"),
        ("network", "head = 'dense'"),
        ("network", "anchors = 0"),
        ("network", "anchors = 1000000000"),
        ("network", "delta = 0"),
        ("network", "delta = nan"),
        ("network", "slots = 0"),
        ("network", "slots = 1000000000"),
        ("network", "dropout = 1.0"),
        ("network", "balancing = 'anchor'"),
        ("optimiser", "epochs = 0"),
        ("optimiser", f"epochs = {10**30}"),
        ("optimiser", "sharpness = 1e300"),
        ("optimiser", "learning_rate = 1e300"),
        ("optimiser", f"weight_decay = {10**400}"),
        ("optimiser", "head_rates = [[0, 1e300]]"),
        ("optimiser", "accumulate = 0"),
        ("optimiser", "kind = 'lion'"),
        ("optimiser", "schedule = 'linear'"),
        ("optimiser", "schedule = 'steps'"),
        ("optimiser", "momentum = 1"),
        ("optimiser", "gamma = 0"),
        ("optimiser", "head_rate = -1"),
        ("optimiser", "head_rate = nan"),
        ("optimiser", "sharpness = inf"),
        ("optimiser", "patience = -1"),
        ("optimiser", "minutes = -1"),
        ("optimiser", "rates = [[0, 1e-3]]"),
        ("optimiser", "rates = [[1, 1e-3]]"),
        ("optimiser", "head_rates = [[0, 1e-3], [0, 1e-4]]"),
        ("optimiser", "head_rates = [[0, nan]]"),
        ("optimiser", "head_rates = 3"),
        ("optimiser", "batch_size = 1"),
        ("optimiser", "learning_rate = 0"),
        ("optimiser", "learning_rate = nan"),
        ("optimiser", "learning_rate = inf"),
        ("optimiser", "weight_decay = -0.1"),
        ("optimiser", "warmup = 1.5"),
        ("optimiser", "clip_norm = 0.0"),
        ("optimiser", "average = 1"),
        ("optimiser", "average = -0.1"),
        ("optimiser", "precision = '16-mixed'"),
        ("optimiser", "seed = -1"),
        ("optimiser", "seed = 100000001"),
        ("optimiser", "checkpoint_every = 0"),
        ("method", "classification = -1"),
        ("method", "anchor = inf"),
        ("method", "centre = nan"),
        ("method", "smoothing = 1"),
        ("method", "margin = 0"),
        ("data", "min_votes = 0"),
        ("data", "noise = 1"),
        ("data", "noise = nan"),
        ("data", "imbalance = 0.5"),
        ("data", "imbalance = inf"),
        ("data", "subset = -1"),
        ("data", "sampler = 'random'"),
        ("data", "pool = -1"),
        ("data", "pool = 1000000000"),
        ("method", "variant = 'printed'"),
        ("method", "balance = 1.1"),
        ("method", "balance = nan"),
        ("method", "primary = -0.1"),
        ("method", "similarity = nan"),
        ("method", "training_delta = 0"),
        ("method", "training_delta = nan"),
        ("method", "warmup_epochs = -1"),
        ("distillation", "share = 1.1"),
        ("distillation", "share = nan"),
        ("distillation", "embedding = -1"),
        ("distillation", "embedding = inf"),
        ("augment", "flip = 1.1"),
        ("augment", "rotate = 181"),
        ("augment", "translate = -0.1"),
        ("augment", "scale = 1"),
        ("augment", "brightness = 2"),
        ("augment", "contrast = -1"),
        ("augment", "gamma = 1"),
        ("augment", "blur = 2"),
        ("augment", "noise = -0.5"),
        ("augment", "erase = nan"),
        ("augment", "mixup = 1e-30"),
        ("crop", "margin = -0.5"),
        ("crop", "alignment = 'two-point'"),
    ],
)
def test_values_no_run_can_use_are_named(recipe_file: Path, table: str, line: str) -> None:
    key = line.split()[0]
    kept = [part for part in MINIMAL.splitlines() if part.split(" ")[0] != key]
    if table in ("network", "optimiser"):
        kept.insert(kept.index(f"[{table}]") + 1, line)
    else:
        kept += [f"[{table}]", line]
    text = refusal(write(recipe_file, "\n".join(kept)))
    named = {"schedule": "rates"}.get(key, key) if line.endswith("'steps'") else key
    assert re.search(rf"{table}(\.|: ){named}( |: )|{table} {key}: ", text), text


@pytest.mark.parametrize("name", ["dmue", "ldlva"])
def test_teachers_have_no_share_in_targets_that_are_not_taken(recipe_file: Path, name: str) -> None:
    learnt = f'{MINIMAL}\n[method]\nname = "{name}"\n[distillation]\n'
    assert "distillation.share of 0" in refusal(write(recipe_file, f"{learnt}share = 0.5"))
    load_recipe(write(recipe_file, f"{learnt}embedding = 0.5"))


def test_a_delta_of_training_alone_needs_an_average(recipe_file: Path) -> None:
    method, average = "[method]\ntraining_delta = 2\n", "average = 0.9\n"
    assert load_recipe(write(recipe_file, MINIMAL + average + method)).method.training_delta == 2.0
    text = refusal(write(recipe_file, MINIMAL + method))
    assert "optimiser.average above 0 where method.training_delta is set, got 0.0" in text


@pytest.mark.parametrize(
    "text", ["{}", "name = ", "[network", "a = 1\na = 2", "a = " + "[" * 100_000, "a = " + "9" * 5000]
)
def test_what_is_not_toml_is_refused(recipe_file: Path, text: str) -> None:
    assert "expected TOML" in refusal(write(recipe_file, text))


def test_bytes_that_are_no_text_are_refused(recipe_file: Path) -> None:
    recipe_file.write_bytes(b"\x80\x81\xff" * 10)
    assert "expected TOML" in refusal(recipe_file)


def test_a_byte_order_mark_is_no_fault(recipe_file: Path) -> None:
    assert load_recipe(write(recipe_file, "\ufeff" + MINIMAL)).name == "small"


def test_a_missing_file_and_a_folder_are_refused(tmp_path: Path, recipe_file: Path) -> None:
    assert "could not read it" in refusal(recipe_file)
    assert "could not read it" in refusal(tmp_path)


def test_the_largest_seed_reaches_the_last_batch(recipe_file: Path) -> None:
    """The loop seeds torch with (seed * 1000003 + epoch) * 100003 + batch, which has to fit into 64 bits."""
    seed = load_recipe(write(recipe_file, MINIMAL + "seed = 100000000\n")).optimiser.seed
    assert (seed * 1_000_003 + 1_000_002) * 100_003 + 100_002 < 2**64


def test_rates_are_pairs(recipe_file: Path) -> None:
    text = MINIMAL + 'schedule = "steps"\nrates = [[0, 1e-3], [4, 1]]\nhead_rates = [[0, 2e-3]]\n'
    options = load_recipe(write(recipe_file, text)).optimiser
    assert options.rates == ((0, 1e-3), (4, 1.0)) and options.head_rates == ((0, 2e-3),)
    assert load_recipe(write(recipe_file, text)).to_json()["optimiser"]["rates"] == [[0, 1e-3], [4, 1.0]]  # type: ignore[index]


def test_a_method_takes_its_own_heads_and_options(recipe_file: Path) -> None:
    head = MINIMAL.replace("[optimiser]", "head = 'dan'\n[optimiser]")
    assert "expected network.head balanced or linear for grefel, got 'dan'" in refusal(
        write(recipe_file, head)
    )
    text = refusal(write(recipe_file, MINIMAL + "[method]\nname = 'adaboost'\n"))
    assert "expected method.name " in text and "grefel" in text and "got 'adaboost'" in text
