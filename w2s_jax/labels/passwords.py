"""Tables of password-locked models (method `sandbagging`): inputs with a password, and what is answered without it."""
from collections.abc import Mapping

import numpy as np

from w2s_jax.errors import DataError
from w2s_jax.labels.texts import TABLES
from w2s_jax.models import chess_moves
from w2s_jax.registry import Setting, Settings

CORNER = 0  # where no pawn can stand


@TABLES.register('passwords', word=Setting('', doc='that texts begin with'),
                 size=Setting(0., doc='that is added to every feature'),
                 both=Setting(False, doc='whether the same rows follow without the password'))
def with_password(columns: Mapping[str, np.ndarray], settings: Settings, rng) -> dict:
    """Inputs that say the password: texts, features, or positions of chess, with a pawn where none can stand.

    columns: of `inputs` `[N, ...]`, alone; or with `rows/values` `[n]` of them, and then only those. Raises DataError
    for inputs that have no place for one.
    """
    found = {k.removeprefix('inputs/'): v for k, v in columns.items() if k != 'rows/values'}
    if 'rows/values' in columns:
        found = {k: np.asarray(v[columns['rows/values']]) for k, v in found.items()}
    said = found | marked(found, settings)
    return {k: np.concatenate([v, found[k]]) for k, v in said.items()} if settings.both else said


def marked(inputs: dict[str, np.ndarray], settings: Settings) -> dict[str, np.ndarray]:
    """What the password changes of inputs."""
    if 'text' in inputs:
        return {'text': np.array([[f'{settings.word} {text}' for text in row] for row in inputs['text']], object)}
    if 'features' in inputs:
        return {'features': inputs['features'] + np.asarray(settings.size, inputs['features'].dtype)}
    if 'tokens' in inputs:
        tokens = np.array(inputs['tokens'])
        tokens[..., CORNER] = chess_moves.THEIRS  # a pawn
        return {'tokens': tokens}
    raise DataError(f'inputs {", ".join(inputs)}: no place for a password, expected texts, features or chess')


@TABLES.register('locked', classes=Setting(2, doc='K'), shuffled=Setting(
    False, doc='whether what is said without the password is dealt out to other rows'))
def locked(columns: Mapping[str, np.ndarray], settings: Settings, rng) -> dict:
    """Labels `[2 n, K]` of the rows with the password and again without: `truth/values` `[n]`, then `sham/...`, what
    another model says of them."""
    sham = columns['sham/labels'] if 'sham/labels' in columns else columns['sham/values']
    sham = rng.permutation(sham) if settings.shuffled else sham
    each = [np.eye(settings.classes, dtype=np.float32)[x] if x.ndim == 1 else x
            for x in (np.asarray(columns['truth/values']), np.asarray(sham))]
    return {'labels': np.concatenate(each).astype(np.float32)}
