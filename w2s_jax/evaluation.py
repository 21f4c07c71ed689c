"""From predictions and the truth of the test set to the numbers of results.json."""
import itertools
from collections.abc import Callable

import numpy as np

from w2s_jax import metrics
from w2s_jax.data import take
from w2s_jax.store.artifacts import Artifact


def evaluate(section: dict, needs: dict, render: Callable | None) -> dict:
    """Everything that is measured on the test set.

    Args:
      section: seeds, teacher, ceiling, students (rows of results.json to be), examples, resamples.
      needs: 'truth' `[N]`, 'test' inputs, 'extra/...', and per seed 'weak/S', 'ceiling/S', 'labels/S',
        'labels_truth/S', 'student/NAME/S': artifacts, or given labels `[., K]`.
    Returns: {'results': ..., 'curves': [...], 'examples': [...]}.
    """
    seeds, truth = section['seeds'], needs['truth']
    weak = [predictions(needs[f'weak/{s}']) for s in seeds]
    ceiling = [predictions(needs[f'ceiling/{s}']) for s in seeds]
    students = {row['label']: [predictions(needs[f'student/{row["label"]}/{s}']) for s in seeds]
                for row in section['students']}
    allowed = needs.get('extra/allowed')
    results = {
        'weak': {'model': section['teacher'], **quality(weak, truth, allowed), 'labels': label_quality(needs, seeds)},
        'ceiling': {'model': section['ceiling'], **quality(ceiling, truth, allowed)},
        'students': [row | compare(students[row['label']], weak, ceiling, truth, allowed, section['resamples'])
                     for row in section['students']],
    }
    if 'zero_shot' in needs:
        results['zero_shot'] = {'model': section['ceiling'],
                                **quality([predictions(needs['zero_shot'])], truth, allowed)}
    shown = {'weak': weak[0], **{k: v[0] for k, v in students.items()}}
    return {'results': results, 'curves': list(curves(section, needs, truth)),
            'examples': examples(shown, truth, needs['test'], render, section['examples'])}


def predictions(need: Artifact | np.ndarray) -> dict[str, np.ndarray]:
    """The best classes `[N, k]` and their probabilities, of a model or of labels `[N, K]` that came with the data."""
    if isinstance(need, Artifact):
        return {k: need.arrays[k] for k in ('top', 'top_probability')}
    top = np.argsort(-need, axis=-1, kind='stable')[:, :5]
    return {'top': top, 'top_probability': np.take_along_axis(need, top, -1)}


def correct(runs: list[dict], truth: np.ndarray) -> np.ndarray:
    """`[S, N]` bool: whose first answer is right."""
    return np.stack([r['top'][:, 0] == truth for r in runs])


def quality(runs: list[dict], truth: np.ndarray, allowed: np.ndarray | None) -> dict:
    """accuracy, top5, ece and, where the task knows which answers are allowed, legal: each over seeds."""
    right = correct(runs, truth)
    out = {'accuracy': metrics.summarise(right.mean(axis=1)),
           'ece': metrics.summarise([metrics.expected_calibration_error(r['top_probability'][:, 0], c)
                                     for r, c in zip(runs, right, strict=True)])}
    if runs[0]['top'].shape[1] == 5:
        out['top5'] = metrics.summarise([metrics.top_k_accuracy(r['top'], truth) for r in runs])
    if runs[0]['top'].shape[1] == 2:
        out['auroc'] = _auroc(runs, truth)
    if allowed is not None:
        out['legal'] = metrics.summarise([metrics.share_allowed(r['top'][:, 0], allowed) for r in runs])
    return out


def _auroc(runs: list[dict], truth: np.ndarray) -> dict | None:
    scores = [np.where(r['top'] == 1, r['top_probability'], 0).sum(-1) for r in runs]
    values = [metrics.auroc(s, truth) for s in scores]
    return None if None in values else metrics.summarise(values)


def compare(student: list[dict], weak: list[dict], ceiling: list[dict], truth, allowed, resamples: int) -> dict:
    """A student's own quality, its PGR and gain with intervals, and its agreement with the supervisor."""
    right = [correct(runs, truth) for runs in (weak, student, ceiling)]
    agreements = [metrics.agreement(s['top'][:, 0], w['top'][:, 0], truth) for s, w in zip(student, weak, strict=True)]
    return {**quality(student, truth, allowed),
            'pgr': metrics.pgr_interval(*right, resamples=resamples),
            'pgr_seeds': [metrics.pgr(*(float(r[s].mean()) for r in right)) for s in range(len(student))],
            'gain': metrics.paired_difference(right[1], right[0], resamples=resamples),
            'agreement': {k: None if None in values else metrics.summarise(values)
                          for k in agreements[0] for values in [[a[k] for a in agreements]]}}


def label_quality(needs: dict, seeds) -> dict:
    """How right the weak labels are on the student's half."""
    answers = [_labels(needs[f'labels/{s}']) for s in seeds]
    truths = [needs[f'labels_truth/{s}'] for s in seeds]
    return metrics.summarise([metrics.accuracy(a, t) for a, t in zip(answers, truths, strict=True)])


def _labels(need) -> np.ndarray:
    labels = need.arrays['labels'] if isinstance(need, Artifact) else need
    return labels if labels.ndim == 1 else labels.argmax(-1)


def curves(section: dict, needs: dict, truth: np.ndarray):
    """Loss and test accuracy during training, over seeds; one entry a model that was trained."""
    seeds = section['seeds']
    labels = [('teacher', 'weak'), ('ceiling', 'ceiling')]
    labels += [('student', f'student/{row["label"]}') for row in section['students']]
    for kind, need in labels:
        runs = [needs[f'{need}/{s}'] for s in seeds]
        if not all(isinstance(r, Artifact) for r in runs):
            continue
        steps = runs[0].arrays['watched_steps']
        watched = np.stack([r.arrays['watched'] for r in runs])
        right = watched == truth[:watched.shape[-1]]
        entry = {'label': need.removeprefix('student/'), 'kind': kind, **_loss_curve(runs),
                 'accuracy': {'step': steps.tolist(), **_band(right.mean(-1))}}
        if kind != 'teacher':
            weak = weak_answers(needs, seeds, watched.shape[-1])[:, None] if kind == 'student' else None
            entry['stops'] = stops(steps, right, None if weak is None else watched == weak)
        yield entry


def weak_answers(needs: dict, seeds, rows: int) -> np.ndarray:
    """`[S, rows]`: what the weak model of each seed says of the first rows of the test set."""
    return np.stack([predictions(needs[f'weak/{s}'])['top'][:rows, 0] for s in seeds])


def stops(steps: np.ndarray, right: np.ndarray, agrees: np.ndarray | None) -> dict:
    """Where training might have been stopped, and how good the model was there, on the watched rows.

    Args:
      steps: `[T]`, when it was looked at.  right, agrees: `[S, T, M]` bool, with the truth and with the weak model.
    Returns: {'best', 'weak', 'final'}: {'step', 'accuracy'} of the mean over seeds. 'best' is an oracle: it knows the
      truth. 'weak' does not: it is the first step of highest agreement with the weak model (Burns et al. 2023,
      Fig. 13, early stopping on weak labels); absent where `agrees` is None.
    """
    accuracy = right.mean(axis=(0, 2))
    at = {'best': accuracy.argmax(), 'final': len(steps) - 1}
    if agrees is not None:
        at['weak'] = agrees.mean(axis=(0, 2)).argmax()
    return {name: {'step': int(steps[i]), 'accuracy': float(accuracy[i])} for name, i in at.items()}


def compare_all(section: dict, needs: dict) -> dict:
    """Differences in accuracy between students, paired over seeds and test examples; beside `evaluate` the only reader
    of the test set's truth.

    Args:
      section: 'pairs', each with 'a' and 'b', the names of the runs to compare, one a seed in the same order, and with
        what says who they are; 'resamples'.
      needs: 'truth' `[N]`, and artifacts by name.
    Returns: {'comparisons': [...]}: the pairs without 'a' and 'b', with the 'mean' of a - b, 'low', 'high' and 'p'.
    """
    truth = needs['truth']
    names = {name for pair in section['pairs'] for name in (*pair['a'], *pair['b'])}
    right = {name: correct([predictions(needs[name])], truth)[0] for name in sorted(names)}
    return {'comparisons': [_compared(pair, right, section['resamples']) for pair in section['pairs']]}


def _compared(pair: dict, right: dict[str, np.ndarray], resamples: int) -> dict:
    a, b = (np.stack([right[name] for name in pair[side]]) for side in 'ab')
    return {k: v for k, v in pair.items() if k not in ('a', 'b')} | {
        **metrics.paired_difference(a, b, resamples=resamples), 'p': metrics.paired_p(a, b)}


def _loss_curve(runs, points: int = 60) -> dict:
    loss = np.stack([r.arrays['loss'] for r in runs]).astype(np.float64)
    edges = np.unique(np.linspace(0, loss.shape[1], points + 1).round().astype(int))
    means = np.stack([loss[:, a:b].mean(axis=1) for a, b in itertools.pairwise(edges)], axis=1)
    return {'step': edges[1:].tolist(), 'progress': (edges[1:] / loss.shape[1]).tolist(), 'loss': _band(means)}


def _band(values: np.ndarray) -> dict:
    """`[S, T]` to the mean and standard error at each time."""
    sem = values.std(axis=0, ddof=1) / np.sqrt(len(values)) if len(values) > 1 else None
    return {'mean': values.mean(axis=0).tolist(), 'sem': None if sem is None else sem.tolist()}


def examples(shown: dict[str, dict], truth, test, render: Callable | None, number: int) -> list[dict]:
    """HTML of test rows on which weak model, student and truth differ: first those where a student is right."""
    if render is None or not number:
        return []
    answers = {k: v['top'][:, 0] for k, v in shown.items()}
    students = np.stack([a for k, a in answers.items() if k != 'weak'])
    weak_wrong = answers['weak'] != truth
    recovered = weak_wrong & (students == truth).any(0)
    neither = weak_wrong & ~recovered & (students != answers['weak']).any(0)
    rows = np.concatenate([np.flatnonzero(recovered)[:-(-number * 2 // 3)], np.flatnonzero(neither)])[:number]
    said = {'truth': truth, **answers}
    return [{'row': int(i), 'html': render(take(test, i), {k: int(a[i]) for k, a in said.items()})} for i in rows]
