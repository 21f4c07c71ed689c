"""Writes a trained language model as a folder that transformers loads: full, with LoRA's factors merged in,
or a probe with what its features were scaled by folded into its head. Prints how to use it.

  python -m experiments.export --workdir=W --out=FOLDER [--kind=student|teacher|ceiling] [--loss=xent] [--seed=0]
        [--overwrite]
  python -m experiments.export --workdir=W --out=FOLDER --kind=student --phase=ID  # one of `ids` in results.json
"""
import pathlib

from absl import flags

from w2s_jax import cli, paths
from w2s_jax.engine import export
from w2s_jax.errors import ConfigError

WORKDIR = flags.DEFINE_string('workdir', None, 'folder of an experiment')
OUT = flags.DEFINE_string('out', None, 'folder to write')
KIND = flags.DEFINE_enum('kind', 'student', ['student', 'teacher', 'ceiling'], 'whose model')
LOSS = flags.DEFINE_string('loss', 'xent', 'the loss that it was trained with')
SEED = flags.DEFINE_integer('seed', 0, 'its seed')
PHASE = flags.DEFINE_string('phase', '', 'its id, where loss and seed do not tell it apart')
OVERWRITE = flags.DEFINE_bool('overwrite', False, 'write into a folder that has something in it')


def folder(name: str, value: str | None) -> pathlib.Path:
    """The folder that a flag names. Raises ConfigError where it is not given."""
    if value is None:
        raise ConfigError(f'--{name}: missing, expected a folder')
    return paths.folder(value, f'--{name}')


def main() -> None:
    """Exports the model that the flags name."""
    workdir, out = (folder(f.name, f.value) for f in (WORKDIR, OUT))
    export.write(workdir, KIND.value, LOSS.value, SEED.value, out, PHASE.value, OVERWRITE.value)
    head = f' and {export.HEAD}' if (out / export.HEAD).exists() else ''
    print(f'{out}: model, config, tokenizer{head}; with transformers and PyTorch:\n')
    print(export.snippet(out))


if __name__ == '__main__':
    cli.run(main)
