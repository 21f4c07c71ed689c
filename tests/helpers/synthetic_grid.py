"""A grid's work directory without the experiments: plausible numbers, the files that a grid writes."""
import itertools
import json

import numpy as np

from w2s_jax import metrics

SIZES = {'chess-xs': 200_000, 'chess-s': 1_500_000, 'chess-m': 12_000_000, 'chess-l': 90_000_000}
SKILL = {'chess-xs': .15, 'chess-s': .24, 'chess-m': .33, 'chess-l': .41}
LOSSES = {'xent': 0., 'confidence': .05, 'margin': -.03}


def write(workdir, axes=None, seeds=(0, 1, 2), failed=(), test=400, task='chess', parameters=True, ids=True):
    """Writes W/grid.json and its cells; returns W.

    Args:
      axes: swept field -> values; 3 teachers, 3 students and 2 losses where it is None.
      failed: numbers of cells that failed.  test: how many test examples.
    """
    axes = axes or {'teacher.model': ['chess-xs', 'chess-s', 'chess-m'],
                    'student.model': ['chess-xs', 'chess-s', 'chess-m'], 'student.loss.name': ['xent', 'confidence']}
    cells, phases = [], {}
    for number, values in enumerate(itertools.product(*axes.values())):
        overrides = dict(zip(axes, values, strict=True))
        name = f'{number:03d}-{"-".join(str(v) for v in values)}'.replace('/', '_')
        reason = 'NonFiniteError: loss became NaN at step 7 of seed 1' if number in failed else None
        cells.append({'name': name, 'overrides': overrides, 'folder': f'cells/{number:03d}', 'failed': reason})
        if not reason:
            _write_cell(workdir / 'cells' / f'{number:03d}', overrides, seeds, test, task, parameters, ids, phases)
    grid = {'name': 'synthetic', 'seeds': list(seeds), 'axes': axes, 'cells': cells, 'phases': list(phases.values()),
            'comparisons': _comparisons(workdir, cells), 'timing': {'total_seconds': 100.},
            'versions': {'jax': '0.10.2'}}
    (workdir / 'grid.json').write_text(json.dumps(grid, allow_nan=False))
    return workdir


def setting(overrides, field, default):
    return default if overrides.get(field) is None else overrides[field]


def _write_cell(folder, overrides, seeds, test, task, parameters, ids, phases):
    teacher = setting(overrides, 'teacher.model', 'chess-xs')
    student = setting(overrides, 'student.model', 'chess-m')
    loss = setting(overrides, 'student.loss.name', 'xent')
    losses = list(dict.fromkeys(['xent', loss]))
    shared = {k: v for k, v in overrides.items() if not k.startswith('student.loss.')}
    rate = setting(overrides, 'optimizer.learning_rate', 1e-3)
    off = -.02 * abs(np.log10(rate / 1e-3))
    right = lambda what, skill: _right(json.dumps(what), skill + off, len(seeds), test)
    weak, ceiling = right([teacher], SKILL[teacher]), right([student], SKILL[student] + .05)
    rows, rights = [], {}
    for name in losses:
        alpha = setting(overrides, 'student.loss.alpha', .5) if name == loss else .5
        mine = shared | ({'student.loss.alpha': overrides.get('student.loss.alpha')} if name != 'xent' else {})
        share = .3 + LOSSES.get(name, 0) * alpha * 6
        skill = SKILL[teacher] + share * (SKILL[student] + .05 - SKILL[teacher])
        rights[name] = made = right([teacher, student, name, mine], skill)
        mine_ids = ids and [_id('student', name, mine, s) for s in seeds]
        rows.append(_row(name, student, made, weak, ceiling, mine_ids, parameters))
        _count(phases, seeds, {'student': [name, mine]}, [student], needed=name == loss)
    _count(phases, seeds, {'ceiling': [student, rate], 'teacher': [teacher, rate]}, [student, teacher])
    folder.mkdir(parents=True)
    size = {'parameters': SIZES[teacher]} if parameters else {}
    results = {'task': {'name': setting(overrides, 'task.name', task)},
               'weak': {'model': teacher, 'accuracy': _accuracy(weak), **size},
               'ceiling': {'model': student, 'accuracy': _accuracy(ceiling)}, 'students': rows,
               'timing': {'total_seconds': 1., 'phases': []}, 'versions': {}}
    config = {'seeds': list(seeds), 'optimizer.learning_rate': rate, **overrides}
    (folder / 'results.json').write_text(json.dumps(results, allow_nan=False))
    curves = [_curve(r['label'], 'student', r) for r in rows] + [_curve('ceiling', 'ceiling', results['ceiling'])]
    (folder / 'evaluation.json').write_text(json.dumps({'curves': curves, 'examples': [], 'config': config}))
    np.savez(folder / 'right.npz', **rights)


def _count(phases, seeds, sections, models, needed=True):
    """Adds phases of a cell, or counts the cell for those that are there."""
    for (kind, section), model in zip(sections.items(), models, strict=True):
        for seed in seeds:
            phase = phases.setdefault(_id(kind, section, seed), {
                'id': _id(kind, section, seed), 'kind': kind, 'name': kind, 'model': model, 'seed': seed,
                'seconds': 10., 'compile_seconds': 2., 'runs': 3, 'examples': 4000, 'tokens': 128_000, 'cells': 0,
                'skipped': False})
            phase['cells'] += needed


def _right(what, skill, seeds, test):
    """bool [S, N]: examples are as hard for everyone, seeds differ by a point."""
    hard = np.random.default_rng(0).uniform(size=test)
    rng = np.random.default_rng(list(what.encode()))
    skill = skill + .01 * rng.normal(size=(seeds, 1))
    return .7 * hard + .3 * rng.uniform(size=(seeds, test)) < np.clip(skill, .02, .98)


def _accuracy(right):
    return metrics.summarise(right.mean(axis=1))


def _row(name, student, right, weak, ceiling, ids, parameters):
    agree = [{'all': .6, 'weak_right': .8, 'weak_wrong': .5}[k] for k in ('all', 'weak_right', 'weak_wrong')]
    row = {'method': 'naive', 'label': name, 'model': student, 'loss': name, 'alpha': 0., 'accuracy': _accuracy(right),
           'pgr': metrics.pgr_interval(weak, right, ceiling, resamples=100),
           'pgr_seeds': [metrics.pgr(w, r, c) for w, r, c in zip(*(x.mean(1).tolist() for x in (weak, right, ceiling)),
                                                                 strict=True)],
           'gain': metrics.paired_difference(right, weak, resamples=100), 'measures': {
               'ece': {'title': 'calibration error (ECE)', 'factor': 1, 'digits': 3} | metrics.summarise(
                   [.1, .11, .12][:len(right)])},
           'agreement': {k: metrics.summarise([v - .01, v, v + .01][:len(right)])
                         for k, v in zip(('all', 'weak_right', 'weak_wrong'), agree, strict=True)}}
    row |= {'ids': ids} if ids else {}
    row |= {'parameters': SIZES[student]} if parameters else {}
    return row


def _id(*what):
    return '-'.join(json.dumps(w) for w in what)


def _curve(label, kind, entry):
    final, steps = entry['accuracy']['mean'], list(range(0, 101, 20))
    mean = [final * (.5 + .5 * np.sin(s / 100 * 2)) for s in steps]
    best = int(np.argmax(mean))
    stops = {n: {'step': steps[i], 'accuracy': mean[i]} for n, i in (('best', best), ('weak', best - 1), ('final', -1))}
    return {'label': label, 'kind': kind, 'step': [1, 50, 100], 'progress': [.01, .5, 1.],
            'loss': {'mean': [3., 2., 1.], 'sem': None}, 'stops': stops,
            'accuracy': {'step': steps, 'mean': mean, 'sem': [.01] * len(steps)}}


def _comparisons(workdir, cells):
    """Each cell's own loss with the baseline."""
    found = []
    for cell in cells:
        loss = setting(cell['overrides'], 'student.loss.name', 'xent')
        if cell['failed'] or loss == 'xent':
            continue
        with np.load(workdir / cell['folder'] / 'right.npz') as right:
            a, b = right[loss], right['xent']
        who = {'teacher': setting(cell['overrides'], 'teacher.model', 'chess-xs'),
               'student': setting(cell['overrides'], 'student.model', 'chess-m'), 'task': setting(
                   cell['overrides'], 'task.name', 'chess')}
        settings = {k: v for k, v in cell['overrides'].items()
                    if k not in ('teacher.model', 'student.model', 'student.loss.name', 'task.name')}
        found.append(who | {'settings': settings, 'loss': loss, 'baseline': 'xent', 'p': metrics.paired_p(a, b)}
                     | metrics.paired_difference(a, b, resamples=100))
    return found
