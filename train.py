"""The entrypoint: compose a config, check it, run it. `train.py --help` lists what exists."""

import sys

import hydra
from omegaconf import DictConfig

from setexp.command_line import quote_paths, refuse_bad_overrides, with_table_experiment
from setexp.config import register

register()


@hydra.main(version_base="1.3", config_path="configs", config_name="config")
def main(config: DictConfig) -> None:
    """Train or evaluate what the config describes."""
    from setexp.run import run

    run(config)


if __name__ == "__main__":
    sys.argv[1:] = with_table_experiment(quote_paths(sys.argv[1:]))
    refuse_bad_overrides(sys.argv[1:])
    main()
