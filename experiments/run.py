"""One experiment, all phases; run it again to go on where it was stopped.

  python -m experiments.run --config=configs/quickstart.py --workdir=runs/quickstart [--config.seeds="(0, 1)"]
"""
from absl import flags
from ml_collections import config_flags

from w2s_jax import cli
from w2s_jax.engine import experiment
from w2s_jax.errors import ConfigError
from w2s_jax.runtime import multihost

CONFIG = config_flags.DEFINE_config_file('config', None, 'configs/F.py or configs/F.py:argument')
cli.define_hosts()
WORKDIR = flags.DEFINE_string('workdir', None, 'where artifacts and results go')


def main() -> None:
    """Runs the experiment that the flags describe."""
    for flag in (CONFIG, WORKDIR):
        if flag.value is None:
            raise ConfigError(f'--{flag.name}: missing, expected for example '
                              '--config=configs/quickstart.py --workdir=runs/quickstart')
    experiment.run(CONFIG.value, str(WORKDIR.value))
    if multihost.is_coordinator():
        print(f'report: {WORKDIR.value}/report.html  results: {WORKDIR.value}/results.json')


if __name__ == '__main__':
    cli.run(main)
