"""What `experiments.benchmark` measures of many runs in one program: a hundred probes against one."""
import statistics
import time

import jax
import jax.numpy as jnp
import numpy as np

from experiments.benchmark.train import Found, ratios
from w2s_jax.models import language, modes
from w2s_jax.runtime import sharding
from w2s_jax.train import program
from w2s_jax.train import step as steps
from w2s_jax.train import trainer as training
from w2s_jax.train.runs import Runs, num_steps

WIDTH, BATCH, EPOCHS = 576, 128, 20


def probe(options) -> Found:
    """`Trainer.fit` of ten seeds by ten learning rates against that of one run, on cached features: from nothing
    compiled, and again."""
    rounds = [{1: fit_probes(1, 1, options.rows or 5000), 100: fit_probes(10, 10, options.rows or 5000)}
              for _ in range(options.rounds)]
    table, found = [['seconds', '1 run', '100 runs', '100 runs / 1 run']], {}
    for when in ('first', 'again'):
        seconds = [[r[k][when] for r in rounds] for k in (1, 100)]
        found[when] = ratios(*seconds)
        table.append([when, *(f'{statistics.median(s):.2f}' for s in seconds),
                      '{ratio:.2f} ({lowest:.2f} to {highest:.2f})'.format(**found[when])])
    return table, {'rounds': rounds} | found


def fit_probes(seeds: int, rates: int, rows: int) -> dict[str, float]:
    """Seconds of `Trainer.fit` for seeds x rates runs: the first call, and one with everything compiled."""
    jax.clear_caches()
    for compiled in (program.compiled_init, program.compiled_step, program.compiled_predict):
        compiled.cache_clear()
    model, seconds = probe_model(), {}
    for when in ('first', 'again'):
        runs = probe_runs(seeds, rates, rows)
        static = steps.Static('xent', num_steps(rows // 2, BATCH, EPOCHS), BATCH, 2)
        trainer, began = training.Trainer(model, static, sharding.make_mesh()), time.perf_counter()
        jax.block_until_ready(trainer.fit(runs)[0])
        seconds[when] = time.perf_counter() - began
    return seconds


def probe_runs(seeds: int, rates: int, rows: int) -> Runs:
    """Runs on random features `[N, 1, D]` whose class a hyperplane decides; those of a seed stand together."""
    rng = np.random.default_rng(0)
    features = rng.normal(size=(rows, 1, WIDTH)).astype(np.float32)
    truth = (features[:, 0] @ rng.normal(size=WIDTH) > 0).astype(np.int32)
    halves = np.stack([np.random.default_rng(s).permutation(rows)[:rows // 2] for s in range(seeds)]).repeat(rates, 0)
    rate = np.tile(np.geomspace(1e-4, 1e-1, rates), seeds).astype(np.float32)
    rest = (np.full(len(rate), x, np.float32) for x in (0, .999, 1, .05))
    return Runs({'features': features}, halves, truth[halves], np.arange(seeds).repeat(rates),
                steps.hyper(rate, *rest), {'features': features[:256]}, 4, 2)


def probe_model() -> modes.Model:
    """The head that is trained on cached features, as `modes.probe` binds it."""
    head = language.TextHead(2)

    def init(key, pretrained=None):
        return {'head': head.init(key, jnp.zeros((1, 1, WIDTH)))['params']}

    def apply(params, inputs, frozen=None):
        return head.apply({'params': params['head']}, inputs['features'])
    return modes.Model('probe', init, apply, modes.count(jax.eval_shape(init, jax.random.key(0))), {}, 1e-3)
