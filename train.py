"""The entrypoint: compose a config, check it, run it. `train.py --help` lists what exists."""

import sys

import hydra
from omegaconf import DictConfig

from setexp.config import refuse_bad_overrides, register

register()


@hydra.main(version_base="1.3", config_path="configs", config_name="config")
def main(config: DictConfig) -> None:
    """Train or evaluate what the config describes."""
    from setexp.run import run

    run(config)


if __name__ == "__main__":
    refuse_bad_overrides(sys.argv[1:])
    main()
