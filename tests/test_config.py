"""Composing configs: schema, checks against constructors, rules between parts, names of runs."""

import re
import shlex
from enum import Enum
from pathlib import Path
from typing import Any

import pytest
from omegaconf import OmegaConf
from smoke_runs import ROOT, complaint, config

from setexp.build import build, check
from setexp.command_line import _parsed, quote_paths, with_table_experiment
from setexp.config import compose_run, plain
from setexp.errors import ConfigError
from setexp.ops.costs import Cost
from setexp.overrides import arguments, axes
from setexp.report.part import part
from setexp.report.tables import load_table, load_tables
from setexp.rules import broken_rules
from setexp.training.settings import Select

POLYGONS = "experiment=polygons_fspool"


def broken(*overrides: str) -> list[str]:
    return broken_rules(config(*overrides))


# What a command line says about a run


def test_axes_are_what_changes_the_numbers() -> None:
    overrides = [
        *("experiment=polygons_fspool", "scale=small", "seeds=[1,2]", "device=cpu", "threads=2"),
        *(
            "paths.outputs=elsewhere",
            "tracking.mode=disabled",
            "trainer.stack=0",
            "trainer.compile=true",
            "restart=true",
        ),
        *("dataset.source=real", "trainer.log_every=1", "hydra/launcher=basic", "figures=none"),
        *("trainer.lr=0.01", "dataset.set_size=4", "decoder=mlp", "trainer.lr_epochs=[1,2]"),
        *("figures.polygons.pictures=3", "tracking={mode:disabled}", "paths={outputs:elsewhere}"),
        *("trainer.clip=null", "loss.steps=all"),
    ]
    assert axes(overrides) == {
        "dataset.set_size": 4,
        "decoder": "mlp",
        "loss.steps": "all",
        "trainer.clip": None,
        "trainer.lr": 0.01,
        "trainer.lr_epochs": [1, 2],
    }
    assert list(axes(overrides)) == sorted(axes(overrides))


def test_axes_know_packages_additions_and_deletions() -> None:
    overrides = ["pooling@encoder.pooling=max", "+evaluation.final.val=x", "~evaluation.metrics"]
    assert axes(overrides) == {
        "evaluation.final.val": "x",
        "evaluation.metrics": None,
        "pooling@encoder.pooling": "max",
    }
    assert arguments(overrides) == [*overrides[1:], overrides[0]]
    assert arguments(["++trainer.lr=0.1", "seeds=[1]"]) == ["++trainer.lr=0.1"]


def test_paths_of_run_folders_need_no_quotes() -> None:
    path = "outputs/a/dataset.set_size=4,trainer.lr=0.1/smoke-synthetic/seed-0/checkpoint.pt"
    assert compose_run(quote_paths([f"checkpoint={path}", POLYGONS])).checkpoint == path
    same = ["a=b", "checkpoint='a=b/c'", "x=range(1,step=2)", "-m", "final={test:a=b/c}", "p=a/b"]
    assert quote_paths(same) == same


def test_a_home_in_a_root_needs_no_quotes() -> None:
    (quoted,) = quote_paths(["dataset.root=~/d (1)"])
    assert quoted == f"dataset.root='{Path.home()}/d (1)'"
    assert compose_run([quoted, "experiment=mnist_sum"]).dataset.root == f"{Path.home()}/d (1)"
    same = ["dataset.root='~/d'", "dataset.root=${paths.data}", "dataset.roots=~/d"]
    assert quote_paths(same) == same


def test_what_only_quotes_may_hold_is_said_to_need_them() -> None:
    with pytest.raises(ConfigError, match="with both quotes"):
        _parsed(["dataset.name=~/d"])


def test_a_tables_command_starts_from_its_first_experiment(tmp_path: Path) -> None:
    assert with_table_experiment(["-m", "table=thesis_6_1"])[-1] == "experiment=dspn_mnist_mlp"
    for same in (["-m", "table=nope"], [POLYGONS], ["table=thesis_6_1", POLYGONS]):
        assert with_table_experiment(same) == same
    (tmp_path / "table").mkdir()
    (tmp_path / "table/mine.yaml").write_text("rows: {a: {experiment: polygons_random}}\n")
    own = ["-m", "--config-dir", str(tmp_path), "table=mine"]
    assert with_table_experiment(own)[-1] == "experiment=polygons_random"
    options_last = ["-m", "table=mine", "--config-dir", str(tmp_path)]
    assert with_table_experiment(options_last)[2:4] == [
        "experiment=polygons_random",
        "--config-dir",
    ]


# Composition


@pytest.mark.parametrize(
    ("override", "expected"),
    [
        ("trainer.foo=1", "trainer.foo: unknown key; trainer has epochs, steps, until"),
        ("dataset.foo=1", "dataset.foo: unknown key; dataset has _target_, set_size"),
        ("foo=1", "foo: unknown key; the config has name, dataset"),
        ("trainers.lr=1", "trainers.lr: unknown key; there is no section trainers"),
        ("trainer.lr=abc", "trainer.lr=abc: Value 'abc' of type 'str' could not be converted"),
        ("trainer.select=worst", "trainer.select=worst: Invalid value 'worst', expected one of"),
        ("seeds=0", "seeds=0: Invalid value"),
        ("decoder=nope", "decoder=nope: unknown; choose one of ban_answers, bilstm, "),
        ("scale=huge", "scale=huge: unknown; choose one of paper, small, smoke"),
        ("pooling=max", "Could not override 'pooling'. Did you mean to override pooling@encoder"),
    ],
)
def test_what_does_not_compose_is_refused_in_one_line(override: str, expected: str) -> None:
    with pytest.raises(ConfigError) as caught:
        compose_run([POLYGONS, override])
    assert str(caught.value).startswith(expected)
    assert "\n" not in str(caught.value)


def test_parts_that_lack_a_key_of_each_other_are_named() -> None:
    with pytest.raises(ConfigError) as caught:
        plain(compose_run([POLYGONS, "encoder=resnet34"]))
    said = str(caught.value)
    assert said.startswith(
        "encoder.image_size: the encoder, ImageEncoder, reads dataset.image_size, which the "
        "dataset, Polygons, does not have; dataset="
    )
    assert "clevr_state" in said and "\n" not in said
    with pytest.raises(ConfigError) as caught:
        plain(compose_run(["experiment=dspn_clevr_state", "decoder=slot_attention"]))
    assert "SlotAttention, reads encoder.width" in str(caught.value)
    assert "encoder=attend, gin, position_cnn have it" in str(caught.value)


def test_scales_change_what_they_say() -> None:
    paper, smoke = config(POLYGONS), config(POLYGONS, "scale=smoke")
    assert (paper["trainer"]["epochs"], paper["trainer"]["batch_size"]) == (10, 16)
    assert (smoke["trainer"]["epochs"], smoke["trainer"]["batch_size"]) == (2, 4)
    assert smoke["dataset"]["train_size"] == 32
    own = config(POLYGONS, "scale=smoke", "trainer.batch_size=8", "dataset.train_size=64")
    assert (own["trainer"]["batch_size"], own["dataset"]["train_size"]) == (8, 64)


def test_pooling_is_as_wide_as_its_elements() -> None:
    """The set encoder of the CLEVR experiments ends in `latent`, others in `hidden`."""
    nodes = config("experiment=dspn_clevr_state", "latent=64", "hidden=32")
    encoder = nodes["task"]["decoder"]["set_encoder"]
    assert encoder["pooling"]["features"] == encoder["elements"]["widths"][-1] == 64
    assert config(POLYGONS, "hidden=8")["task"]["encoder"]["pooling"]["features"] == 8


# Nodes against constructors


def test_all_mistakes_of_a_node_are_found_together() -> None:
    node = {
        "_target_": "setexp.losses.chamfer.ChamferLoss",
        "cost": "cubic",
        "steps": "all",
        "x": 1,
    }
    assert check(node, "loss") == [
        "loss.x: unknown key; ChamferLoss takes cost, steps, mask_channel",
        "loss.mask_channel: missing; ChamferLoss needs it",
        "loss.cost='cubic': Invalid value 'cubic', expected one of "
        "[squared, huber, l2, cross_entropy]",
    ]


def test_mistakes_are_found_below_lists_and_nodes() -> None:
    pool = {"_target_": "setexp.encoders.pooling.MaxPool", "masked": 3.5}
    assert check({"a": [{"b": pool}]}, "top")[0].startswith("top.a[0].b.masked=3.5: ")
    assert check({"a": [{"b": pool | {"masked": True}}]}, "top") == []


@pytest.mark.parametrize(
    ("target", "expected"),
    [
        ("os.system", "only classes of setexp may be named here"),
        ("setexp.losses.nowhere.Loss", "No module named"),
        ("setexp.losses.chamfer.Champagne", "has no attribute 'Champagne'"),
        ("setexp.losses.base.comparable", "only classes of setexp may be named here"),
        ("setexp.losses.base.Tensor", "only classes of setexp may be named here"),
    ],
)
def test_targets_are_classes_of_this_project(target: str, expected: str) -> None:
    (mistake,) = check({"_target_": target}, "loss")
    assert mistake.startswith(f"loss._target_={target}: ") and expected in mistake


def test_a_named_tuple_takes_its_fields() -> None:
    mistakes = check({"_target_": "setexp.sets.SetBatch", "cost": "l2"}, "loss")
    assert mistakes[0] == "loss.cost: unknown key; SetBatch takes x, mask"


def test_an_unknown_key_that_the_experiment_sets_is_said_to_be_left_out() -> None:
    pool = {"_target_": "setexp.encoders.pooling.MaxPool", "masked": True, "relaxed": True}
    unknown = "encoder.pooling.relaxed: unknown key; MaxPool takes masked"
    assert check(pool, "encoder.pooling", ["encoder.pooling.relaxed"]) == [unknown]
    (mistake,) = check(pool, "encoder.pooling", [])
    assert mistake == (
        f"{unknown}; the experiment sets it, leave it out with '~encoder.pooling.relaxed'"
    )
    others = ("experiment=polygons_mlp_chamfer", "pooling@encoder.pooling=max")
    left = config(*others, "~encoder.pooling.relaxed")
    assert "relaxed" not in left["encoder"]["pooling"]


@pytest.mark.parametrize(
    ("overrides", "place"),
    [
        (["experiment=dspn_clevr_state", "encoder.head=null"], "encoder.head=null"),
        (["experiment=ban", "encoder.count=null"], "encoder.count=null"),
        (["experiment=ban", "encoder.order=3"], "encoder.order=3"),
    ],
)
def test_a_part_that_is_none(overrides: list[str], place: str) -> None:
    (mistake,) = check(config(*overrides)["task"], "task")
    assert mistake == f"{place}: a part is wanted here, a mapping with _target_"
    assert check(config("experiment=ban", "encoder.order=null")["task"], "task") == []


def test_a_constructors_refusal_names_the_key_of_the_command() -> None:
    nodes = config("experiment=dspn_clevr_state", "decoder.descent.momentum=2")
    with pytest.raises(ConfigError, match=r"^decoder\.descent\.momentum=2"):
        build(nodes["task"], "task")


def test_build_gives_constructors_their_types() -> None:
    node = {"_target_": "setexp.losses.chamfer.ChamferLoss", "cost": "huber", "steps": "last"}
    loss = build(node | {"mask_channel": True}, "loss")
    assert loss.cost is Cost.huber and loss.mask_channel is True
    assert isinstance(loss.steps, Enum) and loss.steps.name == "last"
    assert build({"a": [1, {"b": None}]}) == {"a": [1, {"b": None}]}


def test_a_constructors_refusal_is_a_config_error() -> None:
    node = config(POLYGONS)["task"]["encoder"]["pooling"]
    with pytest.raises(ConfigError, match=r"^encoder\.pooling: the relaxed sort is descending$"):
        build(node | {"descending": False}, "encoder.pooling")


# Rules between parts

RULES = [
    ([], "experiment=none: choose one"),
    (
        ["experiment=sorting", "decoder=mlp"],
        "decoder=setexp.decoders.mlp.MLPDecoder: setexp.tasks.permute.Permute has no decoder",
    ),
    (
        ["experiment=dspn_mnist_mlp", "decoder.set_size=7"],
        "decoder.set_size=7: the data has dataset.set_size=342",
    ),
    (
        ["experiment=dspn_mnist", "encoder.pooling.features=3"],
        "encoder.pooling.features=3: encoder.elements.widths ends in 64",
    ),
    ([POLYGONS, "encoder.pooling.relaxed=false"], "set encoder.pooling.relaxed=true"),
    (
        [POLYGONS, "decoder.hidden=[16,4]"],
        "decoder.hidden=[16, 4]: its last width must be encoder.pooling.features=16",
    ),
    (
        ["experiment=dspn_clevr_state_mlp", "task.representation_weight=0.1"],
        "task.representation_weight=0.1: only a decoder with a set encoder",
    ),
    (
        ["experiment=clevr_slot_attention", "decoder.head.element_dim=4"],
        "decoder.head.element_dim=4: the data has dataset.element_dim=18",
    ),
    (
        ["experiment=clevr_slot_attention", "decoder.initial.set_size=4"],
        "decoder.initial.set_size=4: the data has dataset.set_size=10",
    ),
    (
        ["experiment=dspn_clevr_state_mlp", "encoder=position_cnn"],
        "encoder=position_cnn: it yields no vector; use decoder=slot_attention or slot_mlp",
    ),
    (
        ["experiment=sslr_circles_srn", "encoder.latent=0"],
        "encoder.latent=0: decoder.set_encoder.pooling.features=100",
    ),
    ([POLYGONS, "evaluation.at=[10]"], "evaluation.at=[10]: only DSPN has inner steps"),
    ([POLYGONS, "trainer.inner_steps=[3]"], "trainer.inner_steps=[3]: this decoder has none"),
    (
        ["experiment=dspn_mnist", "trainer.inner_steps=[3]", "trainer.inner_epochs=[1]"],
        "trainer.inner_epochs=[1]: trainer.inner_steps=[3] must name one number more",
    ),
    (
        ["experiment=dspn_mnist", "evaluation.at=[-1,2]"],
        "evaluation.at=[-1, 2]: inner steps are at least 0",
    ),
    ([POLYGONS, "trainer.batch_size=0"], "trainer.batch_size=0: at least 1"),
    ([POLYGONS, "dataset.test_size=0"], "dataset.test_size=0: at least 1"),
    (["experiment=multisets_idspn", "dataset.val_size=-1"], "dataset.val_size=-1: at least 1"),
    ([POLYGONS, "trainer.log_every=0"], "trainer.log_every=0: at least 1"),
    ([POLYGONS, "trainer.epochs=-1"], "trainer.epochs=-1: at least 0"),
    ([POLYGONS, "trainer.lr=-0.1"], "trainer.lr=-0.1: at least 0"),
    ([POLYGONS, "trainer.lr=nan"], "trainer.lr=nan: at least 0"),
    ([POLYGONS, "trainer.lr_warmup=-1"], "trainer.lr_warmup=-1: at least 0"),
    ([POLYGONS, "trainer.lr_warmup_epochs=-1"], "trainer.lr_warmup_epochs=-1: at least 0"),
    ([POLYGONS, "trainer.lr_decay=-1.0"], "trainer.lr_decay=-1.0: at least 0"),
    ([POLYGONS, "trainer.lr_decay_steps=0"], "trainer.lr_decay_steps=0: at least 1"),
    (
        ["experiment=clevr_questions_fspool", "pooling@encoder.pooling=max"],
        "figures=PoolWeights: encoder.pooling is no FSPool; use none",
    ),
    (
        ["experiment=polygons_mlp_chamfer", "dataset=multisets"],
        "figures=RotatingPolygon: only dataset=polygons has them; use none",
    ),
    (
        ["experiment=dspn_clevr_boxes", "figures=state_progression"],
        "figures=StateProgression: only dataset=clevr_state has them; use none",
    ),
    (
        [
            "experiment=mosaic_classifier",
            "figures=mosaics",
            "figures.mosaic_progression=null",
            "figures.tile_sensitivity=null",
            "figures.tile_gradients=null",
        ],
        "figures=TileCosts: encoder is no PermutationOptimisation; use none",
    ),
    (
        ["experiment=vqa_baseline", "figures=counting_examples"],
        "figures=CountingExamples: encoder.count.count is no CountingModule; use none",
    ),
    (
        ["experiment=dspn_mnist", "figures=decomposition"],
        "figures=Decomposition: task is no Decompose; use none",
    ),
    (["experiment=graphs_bio", "trainer.slice=4"], "trainer.slice=4: graphs are one list; set it"),
    (
        [POLYGONS, "trainer.select=best", "trainer.evaluate_every=1", "evaluation.during=test"],
        "trainer.select=best: name the metric with trainer.select_metric",
    ),
    (
        [POLYGONS, "trainer.select=best", "trainer.select_metric=direct"],
        "trainer.select=best: there are no evaluations to choose from",
    ),
    ([POLYGONS, "mode=test"], "mode=test: use train or eval"),
    ([POLYGONS, "mode=eval"], "mode=eval: name the weights with checkpoint="),
    ([POLYGONS, "threads=0"], "threads=0: at least 1"),
    ([POLYGONS, "processes=0"], "processes=0: at least 1"),
    ([POLYGONS, "seeds=[]"], "seeds=[]: name at least one, and each once"),
    ([POLYGONS, "seeds=[1,1]"], "seeds=[1, 1]: name at least one, and each once"),
]


@pytest.mark.parametrize(("overrides", "expected"), RULES, ids=[text for _, text in RULES])
def test_rules(overrides: list[str], expected: str) -> None:
    (mistake,) = broken(*overrides)
    assert expected in mistake and "\n" not in mistake


def test_a_name_that_a_part_does_not_know() -> None:
    with pytest.raises(ConfigError, match="^dataset.name=NCI2: choose one of MUTAG, PTC_MR, "):
        config("experiment=graphs_bio", "dataset.name=NCI2")
    with pytest.raises(ConfigError, match="sets.MUTAG.degrees.*; these parts do not fit together$"):
        config("experiment=graphs_social", "dataset.name=MUTAG")


def test_the_best_needs_the_enum_not_its_name() -> None:
    assert config(POLYGONS, "trainer.select=best")["trainer"]["select"] is Select.best


@pytest.mark.parametrize(
    ("overrides", "expected"),
    [
        (
            ["dataset.train_size=3"],
            "trainer.batch_size=4: no full batch of train, whose size is 3; give at most that",
        ),
        (
            ["dataset.test_size=3", "evaluation.drop_last=true"],
            "trainer.eval_batch_size=4: no full batch of test, whose size is 3; give at most that",
        ),
    ],
)
def test_a_split_without_a_full_batch_is_refused(overrides: list[str], expected: str) -> None:
    assert complaint(POLYGONS, "scale=smoke", *overrides) == expected


@pytest.mark.parametrize("key", ["evaluation.during=nope", "evaluation.curves=[nope]"])
@pytest.mark.parametrize(
    "experiment", ["polygons_fspool", "counting_toy", "numbering_idspn", "multisets_idspn"]
)
def test_a_split_that_there_is_not_is_refused(experiment: str, key: str, tmp_path: Path) -> None:
    where = ["scale=smoke", f"paths.outputs={tmp_path}"]
    assert complaint(f"experiment={experiment}", key, *where).startswith("split nope: ")
    assert not list(tmp_path.iterdir())


# The files


def test_every_target_in_every_config_exists() -> None:
    targets = {
        value
        for path in (ROOT / "configs").rglob("*.yaml")
        for value in _targets(OmegaConf.to_container(OmegaConf.load(path)))
    }
    assert len(targets) >= 15
    mistakes = [m for target in sorted(targets) for m in check({"_target_": target}, "node")]
    assert [m for m in mistakes if "_target_" in m] == []


def _targets(node: Any) -> list[str]:
    if isinstance(node, list):
        return [target for item in node for target in _targets(item)]
    if not isinstance(node, dict):
        return []
    own = [node["_target_"]] if "_target_" in node else []
    return own + [target for value in node.values() for target in _targets(value)]


def _runs_of(command: str) -> list[tuple[str, dict[str, Any]]]:
    """Experiments and axes that a command trains."""
    overrides = shlex.split(command, comments=True)
    said = dict(o.split("=", 1) for o in overrides if "=" in o)
    if "table" in said:
        found = part(load_table(said["table"]), said.get("rows"), said.get("columns")).runs
        return [(run.experiment, run.axes) for run in found]
    return [(said["experiment"], axes(overrides))]


def listing(group: str) -> list[Path]:
    """The configs of a group, of which there are some."""
    found = sorted((ROOT / "configs" / group).glob("*.yaml"))
    assert found
    return found


def test_every_experiment_names_a_command_whose_run_a_table_reads() -> None:
    """Days of training under other axes would fill no cell."""
    read = [(run.experiment, run.axes) for table in load_tables() for run in table.runs]
    for path in listing("experiment"):
        commands = re.findall(r"^#   python train.py (.*)", path.read_text(), flags=re.M)
        runs = [run for command in commands for run in _runs_of(command) if run[0] == path.stem]
        assert any(run in read for run in runs), path.name


def test_every_config_says_what_it_is() -> None:
    """Experiments and tables name their document and table; parts that are not obvious explain."""
    for group in ("experiment", "table"):
        for path in listing(group):
            if path.stem == "none":
                continue
            head = path.read_text().split("\nname:")[0]
            assert re.search(
                r"^# (Thesis|iDSPN|SSLR), (Tables?|Figures?|section) ", head, flags=re.M
            ), path.name
            assert "python train.py" in head, path.name
            assert f"={path.stem}" in head, f"{path.name}: its command names another config"
