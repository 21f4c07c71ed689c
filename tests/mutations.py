"""Deliberate defects, each of which some tests of `make test` must catch: `python tests/mutations.py [NAME ...]`.

Every defect is one replaced piece of text. It is made in a copy of the checkout, where the tests named with it then
run; they ran without it before, and passed. Exit status 1 if a defect survives, 2 if one cannot be made.
"""
import os
import pathlib
import shutil
import subprocess
import sys
import tempfile
import time
from typing import NamedTuple

ROOT = pathlib.Path(__file__).parents[1]
COPIED = ('w2s_jax', 'experiments', 'configs', 'tests', 'docs', 'README.md', 'pyproject.toml')


class Mutation(NamedTuple):
    """A defect: in `file` of w2s_jax, `old`, which is there once, becomes `new`; `tests` are files of tests."""
    name: str
    file: str
    old: str
    new: str
    tests: str


LOSSES, METRICS, DATA = 'losses_test.py', 'metrics_test.py', 'data_test.py'
LABELS, FILTERS = 'labels/transforms_test.py', 'labels/filters_test.py'
EVALUATION, TRAIN = 'evaluation_test.py', 'train/train_test.py'
FORMULAS = 'losses_formulas_test.py'
STORE, LEASE, GRAPH = 'store/store_test.py', 'store/lease_test.py', 'engine/graph_test.py'
MUTATIONS = [
    Mutation('the warm-up of alpha goes on', 'losses.py', 'jnp.minimum(ramp, 1)', 'ramp', LOSSES),
    Mutation('weak labels keep their weight', 'losses.py', '(1 - alpha) * targets', 'targets', LOSSES),
    Mutation('ties go to class one', 'losses.py', 'probability >= threshold', 'probability > threshold', LOSSES),
    Mutation('a gradient through what the product believes', 'losses.py',
             'jax.lax.stop_gradient(jnp.where(targets > 0, believed, 0))', 'jnp.where(targets > 0, believed, 0)',
             LOSSES),
    Mutation('a weighted mean divided by the rows', 'losses.py', '/ jnp.where(total > 0, total, 1)', '/ len(weight)',
             LOSSES),
    Mutation('the window keeps who is sure', 'losses.py', 'axis=-1) < 1 / logits.shape[-1] + radius',
             'axis=-1) >= 1 / logits.shape[-1] + radius', FORMULAS),
    Mutation('an entropy without a gradient', 'losses.py', 'alpha * jax.nn.softmax(logits)',
             'alpha * jax.lax.stop_gradient(jax.nn.softmax(logits))', FORMULAS),
    Mutation('labels that are unlikely are not clipped', 'losses.py', 'jnp.maximum(jnp.log(targets), log_zero)',
             'jnp.where(targets > 0, jnp.log(targets), log_zero)', FORMULAS),
    Mutation('PGR relative to the ceiling', 'metrics.py', 'return (student - weak) / (ceiling - weak)',
             'return (student - weak) / ceiling', METRICS),
    Mutation('a standard error with ddof 0', 'metrics.py', 'values.std(ddof=1)', 'values.std(ddof=0)', METRICS),
    Mutation('agreement where the weak model is right, twice', 'metrics.py', 'same[~right]', 'same[right]', METRICS),
    Mutation('Holm without its order', 'metrics.py', 'np.maximum.accumulate(p[order] * np.arange(len(p), 0, -1))',
             'p[order] * len(p)', METRICS),
    Mutation('groups straddle the halves', 'data.py', 'chosen[ids] != turned',
             'chosen[np.arange(len(ids)) % len(sizes)] != turned', DATA),
    Mutation('both halves are one', 'data.py', 'return np.flatnonzero(first), np.flatnonzero(~first)',
             'return np.flatnonzero(first), np.flatnonzero(first)', DATA),
    Mutation('halves of sizes that depend on the seed', 'data.py', 'len(ids) - wanted if turned else wanted', 'wanted',
             DATA),
    Mutation('the same halves for every seed', 'data.py', 'default_rng((seed, tail))', 'default_rng(tail)', DATA),
    Mutation('the same order every epoch', 'data.py', 'default_rng((seed, epoch))', 'default_rng(seed)', DATA),
    Mutation('temperature upside down', 'labels/transforms.py', '/ temperature', '* temperature', LABELS),
    Mutation('noise that may change nothing', 'labels/transforms.py', 'rng.integers(1, classes,',
             'rng.integers(0, classes,', LABELS),
    Mutation('hardened to the least probable class', 'labels/transforms.py', 'labels.argmax(-1)', 'labels.argmin(-1)',
             LABELS),
    Mutation('the least sure rows are kept', 'labels/filters.py', 'np.argsort(-scores[rows]',
             'np.argsort(scores[rows]', FILTERS),
    Mutation('hard labels that are the least probable', 'phases/predict.py', 'labels.argmax(-1)', 'labels.argmin(-1)',
             LABELS),
    Mutation('microbatches of equal weight', 'train/gradients.py', "jnp.sum(part['weight']) / total",
             '1 / static.accumulate', TRAIN),
    Mutation('logits of microbatches out of order', 'train/gradients.py',
             'jnp.swapaxes(x, 0, 1).reshape(-1, *x.shape[2:])', 'x.reshape(-1, *x.shape[2:])', TRAIN),
    Mutation('a half written artifact counts', 'store/artifacts.py',
             "return Artifact(path) if (path / 'DONE').exists() else None",
             'return Artifact(path) if path.exists() else None', STORE),
    Mutation('the second save replaces the first', 'store/artifacts.py',
             "if path.exists() and not (path / 'DONE').exists()", 'if path.exists()', STORE),
    Mutation('a lease is never lost', 'store/lease.py', 'return self.slot.numbers()[-1:] != [self.number]',
             'return False', LEASE),
    Mutation('an identity without what was learned from', 'graph.py', "{k: v.id for k, v in self.needs.items()}}",
             "{k: '' for k, v in self.needs.items()}}", GRAPH),
    Mutation('the last answer counts', 'evaluation.py', "r['top'][:, 0] == truth", "r['top'][:, -1] == truth",
             EVALUATION),
    Mutation('PGR with the student as its own ceiling', 'evaluation.py', 'for runs in (weak, student, ceiling)]',
             'for runs in (weak, student, student)]', EVALUATION),
    Mutation('weak stopping that knows the truth', 'evaluation.py', 'agrees.mean(axis=(0, 2)).argmax()',
             'accuracy.argmax()', EVALUATION),
    Mutation('weak labels measured on other rows', 'labels/changes.py', "need.arrays['rows'] if rows is None else rows",
             'slice(len(labels))', EVALUATION),
]


def mutated(one: Mutation) -> str:
    """The text of its file with the defect. Exits if what it replaces is not there once."""
    text = (ROOT / 'w2s_jax' / one.file).read_text()
    if text.count(one.old) != 1:
        sys.exit(f'error: {one.name}: {one.old!r} is {text.count(one.old)} times in w2s_jax/{one.file}, expected once')
    return text.replace(one.old, one.new)


def run(copy: pathlib.Path, tests: list[str]) -> int:
    """The status of pytest: 0 where all tests pass, 1 where one fails."""
    environment = os.environ | {'PYTHONPATH': str(copy), 'PYTHONDONTWRITEBYTECODE': '1', 'JAX_COMPILATION_CACHE_DIR':
                                str(ROOT / '.pytest_cache' / 'compiled')}
    done = subprocess.run([sys.executable, '-m', 'pytest', '-x', '-p', 'no:cacheprovider', *tests], cwd=copy,
                          env=environment, capture_output=True, text=True)
    if done.returncode not in (0, 1):
        sys.exit(f'error: pytest {" ".join(tests)} ended with status {done.returncode}\n{done.stdout}{done.stderr}')
    return done.returncode


def main(names: list[str]) -> int:
    if unknown := set(names) - {m.name for m in MUTATIONS}:
        sys.exit(f'error: {min(unknown)!r}: no such mutation, expected one of {[m.name for m in MUTATIONS]}')
    chosen = [m for m in MUTATIONS if m.name in names or not names]
    texts = {m: mutated(m) for m in chosen}
    with tempfile.TemporaryDirectory() as folder:
        copy = pathlib.Path(folder)
        for name in COPIED:
            there = ROOT / name
            if there.is_dir():
                shutil.copytree(there, copy / name, ignore=shutil.ignore_patterns('__pycache__'))
            else:
                shutil.copy(there, copy)
        if run(copy, sorted({f'tests/{m.tests}' for m in chosen})):
            sys.exit('error: the tests fail without any mutation')
        survived = 0
        for one in chosen:
            began, path = time.monotonic(), copy / 'w2s_jax' / one.file
            path.write_text(texts[one])
            caught = run(copy, [f'tests/{one.tests}'])
            shutil.copy(ROOT / 'w2s_jax' / one.file, path)
            survived += not caught
            print(f'{"caught  " if caught else "SURVIVED"} {one.name} ({one.file}; tests/{one.tests}, '
                  f'{time.monotonic() - began:.0f} s)', flush=True)
    print(f'{len(chosen) - survived} of {len(chosen)} caught')
    return 1 if survived else 0


if __name__ == '__main__':
    sys.exit(main(sys.argv[1:]))
